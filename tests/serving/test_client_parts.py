"""What a server says of itself, and calls with more maps than a server takes at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, astuple
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from served import FREE_PORTS, TINY, blocks, png

from serving.client.client import Client, ModelInfo, RequestTimings, ServerError
from serving.protocol import UNKNOWN, joined_timings
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions, Server, serve
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.maps.colours import class_names, class_palette

PROTOCOLS = ("grpc", "http")
MAX_BATCH = 3


@pytest.fixture(scope="module")
def narrow_server(demo_weights: Path) -> Iterator[Server]:
    """The demo preset with a small limit of maps in a request."""
    model = ModelOptions(demo_weights, precision="fp32", threads=1, max_batch=MAX_BATCH, max_pixels=300_000)
    with serve(ServeOptions(model, **FREE_PORTS)) as server:
        yield server


def classes(config: GeneratorConfig) -> tuple[Any, Any]:
    """The names and the colours of the classes."""
    return class_names(config), tuple(map(tuple, class_palette(config).tolist()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_says_what_it_serves(narrow_server: Server, tiny_server: Server, protocol: str) -> None:
    with Client(getattr(narrow_server, f"{protocol}_url")) as client:
        info = client.info()
    assert info == ModelInfo("demo", 16, False, 256, 256, False, True, MAX_BATCH, 300_000, *classes(PRESETS["demo"]))
    with pytest.raises(FrozenInstanceError):
        info.preset = "other"  # type: ignore[misc]
    with Client(getattr(tiny_server, f"{protocol}_url")) as client:
        found = client.info()
    assert found == ModelInfo("tiny", TINY.label_nc, True, 64, 64, True, False, 8, 1 << 20, *classes(TINY))
    assert found.class_names[-2:] == ("class 7", "don't care")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_parts_come_back_as_one_result_in_order(narrow_server: Server, protocol: str, count: int) -> None:
    maps = blocks(5, count)
    seeds = np.arange(10, 10 + count)
    styles = np.random.default_rng(1).standard_normal((count, 256), np.float32)
    with Client(getattr(narrow_server, f"{protocol}_url")) as client:
        for options in ({"seed": seeds}, {"style": styles}):
            result = client.synthesize(maps, **options)  # type: ignore[arg-type]
            assert result.images.shape == (count, 256, 256, 3)
            for i in range(count):
                one = {name: rows[i : i + 1] for name, rows in options.items()}
                alone = client.synthesize(maps[i : i + 1], **one).images[0]  # type: ignore[arg-type]
                # Another batch size may move a value by one grey level.
                assert np.abs(alone.astype(int) - result.images[i]).max() <= 1
        assert result.timings.batch_size == min(count, MAX_BATCH)
        assert result.timings.total_s > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parts_of_files_come_back_in_order(narrow_server: Server, protocol: str) -> None:
    maps = [png(labels) for labels in blocks(6, 5)]
    with Client(getattr(narrow_server, f"{protocol}_url")) as client:
        files = client.synthesize_image(maps, seed=3, format="webp").images
        assert len(files) == 5
        pairs = [client.synthesize_image(maps[first : first + 3], seed=3, format="webp").images for first in (0, 3)]
        assert files == [*pairs[0], *pairs[1]]


def test_an_error_names_the_part(narrow_server: Server) -> None:
    maps = blocks(5, 7)
    maps[5, 0, 0] = 99
    with Client(narrow_server.grpc_url) as client:
        with pytest.raises(
            ServerError, match=r"first at item 2, row 0, .* \(items count from map 3 of the call\)$"
        ) as e:
            client.synthesize(maps)
        assert e.value.status == "invalid_argument"
        # Rows without a map reach the server, which refuses them.
        with pytest.raises(ServerError, match="batch"):
            client.synthesize(blocks(5, 6), style=np.zeros((8, 256), np.float32))


def test_a_server_without_info_gets_the_maps_at_once(narrow_server: Server) -> None:
    """A version that was published before there was an output `info`."""
    with Client(narrow_server.grpc_url) as client:
        with pytest.raises(ServerError, match="unexpected inference output 'absent'") as unknown:
            client._infer("spade_image", {"label_map": np.zeros((1, 1), np.uint8)}, {}, ["absent"])
        assert unknown.value.status == "invalid_argument"
        with mock.patch.object(Client, "info", side_effect=unknown.value):
            assert len(client.synthesize(blocks(1, MAX_BATCH)).images) == MAX_BATCH
            with pytest.raises(ServerError, match=f"batch-size must be <= {MAX_BATCH}"):
                client.synthesize(blocks(1, MAX_BATCH + 1))


def test_a_client_learns_a_new_limit_after_a_refusal(narrow_server: Server) -> None:
    with Client(narrow_server.grpc_url) as client:
        client._max_batch = 8  # as a server had it that listened at this address before
        with pytest.raises(ServerError, match=f"batch-size must be <= {MAX_BATCH}"):
            client.synthesize(blocks(1, 5))
        assert len(client.synthesize(blocks(1, 5)).images) == 5


def test_timings_of_parts_are_joined() -> None:
    first = RequestTimings(0.5, 1, 2, 3, 7, 3, 0.25)
    second = RequestTimings(0.25, 1, 1, 1, 4, 1, 0.75)
    assert joined_timings([(3, first)]) == first
    assert astuple(joined_timings([(3, first), (1, second)])) == (0.75, 2, 3, 4, 11, 3, 0.375)
    unknown = joined_timings([(3, first), (1, RequestTimings.unknown())])
    assert set(astuple(unknown)) == {UNKNOWN}
