"""Label maps to images through the real server, over both protocols, alone and in batches."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from served import blocks, png

from serving.client.client import Client, Result, ServerError
from serving.engines.contract import Engine
from serving.protocol import pad_files
from serving.requests.images import decode_maps
from serving.triton.server import Server
from spade_core.config import PRESETS
from spade_core.models.style import style_from_seed

PROTOCOLS = ["grpc", "http"]
# Convolution libraries add in another order for another batch size, so a value between two grey levels may fall to the
# other side. One level is the largest effect.
LEVEL = 1


def connect(server: Server, protocol: str) -> Client:
    return Client(server.grpc_url if protocol == "grpc" else server.http_url)


def alone(engine: Engine, labels: npt.NDArray[np.uint8], seed: int = 0) -> npt.NDArray[np.uint8]:
    """The engine's image of each map of [N, H, W], made one by one."""
    style = style_from_seed(seed)[None]
    return np.concatenate([engine.synthesize(one[None], None, style) for one in labels])


def assert_same_images(got: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= LEVEL


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_image_is_the_engines_image(demo_server: Server, demo_engine: Engine, protocol: str) -> None:
    labels = blocks(1)
    with connect(demo_server, protocol) as client:
        assert client.ready()
        result = client.synthesize(labels, seed=5)
    assert_same_images(result.images, alone(demo_engine, labels, seed=5))
    assert result.timings.queue_s > 0
    assert result.timings.total_s >= result.timings.convs_s > 0
    assert 0 < result.timings.distinct_share < 1


def test_style_seed_and_default_are_what_they_say(demo_server: Server) -> None:
    labels = blocks(2)
    with Client(demo_server.grpc_url) as client:
        by_seed = client.synthesize(labels, seed=3).images
        by_style = client.synthesize(labels, style=style_from_seed(3)[None]).images
        by_default = client.synthesize(labels).images
        by_zero = client.synthesize(labels, seed=0).images
    np.testing.assert_array_equal(by_seed, by_style)
    np.testing.assert_array_equal(by_default, by_zero)
    assert (by_seed != by_zero).mean() > 0.5


def test_one_seed_for_each_map_of_a_request(demo_server: Server, demo_engine: Engine) -> None:
    labels = blocks(3, count=2)
    with Client(demo_server.grpc_url) as client:
        images = client.synthesize(labels, seed=np.array([4, 9])).images
    assert_same_images(images[:1], alone(demo_engine, labels[:1], seed=4))
    assert_same_images(images[1:], alone(demo_engine, labels[1:], seed=9))


def until_taken(ask: Callable[[], Result]) -> Result:
    """Ask again while the queue, which holds four maps, is full."""
    while True:
        try:
            return ask()
        except ServerError as error:
            if not error.retryable:
                raise
            time.sleep(0.02)


def test_four_clients_at_once_with_batches_of_one_to_eight(tiny_server: Server, tiny_engine: Engine) -> None:
    labels = blocks(4, count=8, size=64, classes=8)
    instances = labels.astype(np.int32)
    expected = np.concatenate([tiny_engine.synthesize(labels[i : i + 1], instances[i : i + 1], None) for i in range(8)])
    sizes = [[1, 8], [2, 7], [3, 6], [4, 5]]

    def client_of(sizes_and_protocol: tuple[list[int], str]) -> list[Result]:
        mine, protocol = sizes_and_protocol
        with connect(tiny_server, protocol) as client:
            return [until_taken(partial(client.synthesize, labels[:size], instances[:size])) for size in mine]

    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(client_of, zip(sizes, PROTOCOLS * 2, strict=True)))
    for mine, results in zip(sizes, answers, strict=True):
        for size, result in zip(mine, results, strict=True):
            assert_same_images(result.images, expected[:size])
            assert size <= result.timings.batch_size <= 8


def test_requests_of_several_clients_form_one_batch(tiny_server: Server, tiny_engine: Engine) -> None:
    labels = blocks(5, count=3, size=64, classes=8)
    instances = labels.astype(np.int32)

    together = Barrier(3)

    def client_of(index: int) -> Result:
        with Client(tiny_server.grpc_url) as client:
            assert client.ready()
            together.wait()
            return client.synthesize(labels[index : index + 1], instances[index : index + 1])

    with ThreadPoolExecutor(3) as clients:
        results = list(clients.map(client_of, range(3)))
    assert max(result.timings.batch_size for result in results) >= 2
    for index, result in enumerate(results):
        one = tiny_engine.synthesize(labels[index : index + 1], instances[index : index + 1], None)
        assert_same_images(result.images, one)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_png_in_and_png_out(demo_server: Server, demo_engine: Engine, protocol: str) -> None:
    files = [png(blocks(6)[0, ::2, ::2]), png(blocks(7, size=320)[0])]
    labels = decode_maps(pad_files(files)[0], None, PRESETS["demo"])["labels"]
    with connect(demo_server, protocol) as client:
        result = client.synthesize_image(files, seed=2)
    images = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in result.images])
    assert_same_images(images, alone(demo_engine, labels, seed=2))
    assert result.timings.batch_size == 2


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_png_in_and_lossy_files_out(demo_server: Server, name: str) -> None:
    with Client(demo_server.http_url) as client:
        (file,) = client.synthesize_image([png(blocks(8)[0])], format=name, quality=80).images
    image = Image.open(io.BytesIO(file))
    assert (image.format, image.size) == (name.upper(), (256, 256))


def test_raw_and_png_requests_form_one_batch(tiny_server: Server) -> None:
    labels = blocks(9, size=64, classes=8)
    with Client(tiny_server.grpc_url) as raw, Client(tiny_server.grpc_url) as files, ThreadPoolExecutor(2) as pool:
        assert raw.ready()
        assert files.ready()
        first = pool.submit(raw.synthesize, labels, labels.astype(np.int32))
        second = pool.submit(files.synthesize_image, [png(labels[0])], [png(labels[0])])
        assert first.result().timings.batch_size == second.result().timings.batch_size == 2
        image = np.asarray(Image.open(io.BytesIO(second.result().images[0])))
    np.testing.assert_array_equal(image, first.result().images[0])


def test_real_maps_through_the_server(tiny_server: Server, tiny_engine: Engine, real_maps: Path) -> None:
    """Real shapes and instance maps of COCO-Stuff, with the ids reduced to the classes of the tiny model."""
    names = sorted(path.name for path in (real_maps / "label").glob("*.png"))[:4]
    labels, instances = [], []
    for name in names:
        ids = np.asarray(Image.open(real_maps / "label" / name))
        labels.append(png(np.where(ids == 255, 255, ids % 8).astype(np.uint8)))
        instances.append((real_maps / "inst" / name).read_bytes())
    with Client(tiny_server.grpc_url) as client:
        files = client.synthesize_image(labels, instances).images
    maps = decode_maps(pad_files(labels)[0], pad_files(instances)[0], tiny_engine.config)
    expected = tiny_engine.synthesize(maps["labels"], maps["instances"], None)
    assert_same_images(np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files]), expected)
