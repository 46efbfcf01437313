"""Publish into the repository of a real server under load: no request is lost, and no damaged version serves."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton_http
from prometheus_client.parser import text_string_to_metric_families
from served import FREE_PORTS, TINY, blocks, wait_until
from tritonclient.utils import InferenceServerException

from serving.client.client import Client
from serving.engines.choose import load_engine
from serving.triton.announcement import ADMIN_HEADER, SERVER_FILE
from serving.triton.model_config import ModelOptions
from serving.triton.repository import (
    PublishError,
    Version,
    announced,
    check_live,
    live_number,
    publish_checkpoint,
    roll_back,
    versions,
)
from serving.triton.server import Launcher, ServeOptions, Server, serve
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator

LABELS = blocks(1, size=64, classes=8)
Image = npt.NDArray[np.uint8]


@pytest.fixture
def weights(tmp_path: Path) -> Callable[[int], Path]:
    def of(seed: int) -> Path:
        path = tmp_path / f"{seed}.safetensors"
        save(path, seeded_generator(TINY, seed))
        return path

    return of


def publish(root: Path, weights: Path, keep: int = 5) -> Version:
    options = ModelOptions(weights, threads=1, decoders=1)
    return publish_checkpoint(root, options, TINY, {"source": weights.name}, keep)


def image_of(weights: Path) -> Image:
    return load_engine("auto", weights, threads=1).synthesize(LABELS, LABELS.astype(np.int32), None)


def ask(server: Server) -> Image:
    with Client(server.grpc_url) as client:
        return client.synthesize(LABELS, LABELS.astype(np.int32)).images


class Load:
    """Four clients that ask without a pause. `answers` are the images in the order of their arrival."""

    def __init__(self) -> None:
        self.answers: list[Image] = []
        self.stop = threading.Event()

    def client(self, url: str) -> None:
        try:
            with Client(url) as client:
                while not self.stop.is_set():
                    self.answers.append(client.synthesize(LABELS, LABELS.astype(np.int32)).images)
        finally:
            self.stop.set()

    def wait(self, more: int = 8) -> None:
        wanted = len(self.answers) + more
        while len(self.answers) < wanted:
            assert not self.stop.wait(0.01), "a client ended"


@contextmanager
def under_load(server: Server) -> Iterator[Load]:
    load = Load()
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load.client, server.grpc_url) for _ in range(4)]
        try:
            load.wait()
            yield load
            load.wait()
        finally:
            load.stop.set()
            for client in clients:
                client.result()  # raises the error of a refused request


def spoil(file: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def test_publish_roll_back_and_corruption_under_load(tmp_path: Path, weights: Callable[[int], Path]) -> None:
    root = tmp_path / "repository"
    publish(root, weights(1))
    first, second = image_of(weights(1)), image_of(weights(2))
    assert (first != second).any()
    with serve(ServeOptions(repository=root, **FREE_PORTS)) as server, under_load(server) as load:
        assert publish(root, weights(2)).number == 2
        np.testing.assert_array_equal(ask(server), second)
        load.wait()
        assert roll_back(root).number == 1
        np.testing.assert_array_equal(ask(server), first)
        load.wait()

        # A version whose file was damaged on disk is refused before the server is asked.
        spoil(root / "spade" / "2" / "weights.safetensors")
        with pytest.raises(PublishError, match=r"weights.safetensors has sha256 .*; version 1 stays live"):
            roll_back(root, 2)
        np.testing.assert_array_equal(ask(server), first)
        # The model itself refuses to load the version too, and Triton keeps the old one.
        (root / "spade" / "config.pbtxt").write_bytes((root / "spade" / "2" / "spade.pbtxt").read_bytes())
        with (
            triton_http.InferenceServerClient(server.http_url.removeprefix("http://"), network_timeout=60) as admin,
            pytest.raises(InferenceServerException, match="expected the files that were published"),
        ):
            admin.load_model("spade", headers={ADMIN_HEADER: server.secret})
        np.testing.assert_array_equal(ask(server), first)
        load.wait()
    for answer in load.answers:
        assert np.array_equal(answer, first) or np.array_equal(answer, second)
    assert not (root / SERVER_FILE).exists()


def test_a_version_the_server_cannot_run_is_taken_back(tmp_path: Path, weights: Callable[[int], Path]) -> None:
    root = tmp_path / "repository"
    publish(root, weights(1))
    (tmp_path / "junk.safetensors").write_bytes(b"not weights")
    with serve(ServeOptions(repository=root, **FREE_PORTS)) as server:
        with pytest.raises(PublishError, match=r"load version 2 .*safetensors.*; version 1 stays live"):
            publish(root, tmp_path / "junk.safetensors")
        assert live_number(root) == 1
        np.testing.assert_array_equal(ask(server), image_of(weights(1)))
        # A roll-back passes over the refused version; the next publication removes it.
        assert publish(root, weights(3)).number == 3
        assert [(v.number, v.refused is None) for v in versions(root)] == [(1, True), (3, True)]
        with pytest.raises(PublishError, match="load version 4"):
            publish(root, tmp_path / "junk.safetensors")
        assert publish(root, weights(5), keep=3).number == 5


def test_the_metrics_of_a_new_version_are_its_own(tmp_path: Path, weights: Callable[[int], Path]) -> None:
    """Triton frees series of equal labels with the first process that ends, so each process has a label."""
    root = tmp_path / "repository"
    publish(root, weights(1))
    with serve(ServeOptions(repository=root, **FREE_PORTS)) as server:
        ask(server)
        wait_until(lambda: list(answered(server).values()) == [1], "the first request to count")
        (old,) = answered(server)
        publish(root, weights(2))
        while old in (now := answered(server)):
            time.sleep(0.1)  # the old process removes its series after its last answer
        assert len(now) == 1
        for _ in range(3):
            ask(server)
        wait_until(lambda: list(answered(server).values()) == [3], "three requests to count")


def answered(server: Server) -> dict[str, float]:
    """Process -> number of requests of `spade` that the process answered, from a scrape of the metrics."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return {
        sample.labels["process"]: sample.value
        for sample in samples
        if sample.name == "spade_requests_total" and sample.labels["outcome"] == "ok"
    }


def test_a_version_published_while_the_server_starts_is_loaded(
    tmp_path: Path, weights: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository"
    publish(root, weights(1))
    start = Launcher.start

    def publish_at_the_end(*arguments: Any) -> Server:
        server = start(*arguments)
        publish(root, weights(2))  # no server is announced yet
        return server

    monkeypatch.setattr(Launcher, "start", publish_at_the_end)
    with serve(ServeOptions(repository=root, **FREE_PORTS)) as server:
        np.testing.assert_array_equal(ask(server), image_of(weights(2)))


def test_the_file_of_a_server_that_was_killed_is_passed_over(tmp_path: Path, weights: Callable[[int], Path]) -> None:
    root = tmp_path / "repository"
    publish(root, weights(1))
    # Port 9 refuses connections; process 1 always runs and is not the server.
    (root / SERVER_FILE).write_text('{"pid": 1, "grpc_url": "grpc://127.0.0.1:9", "secret": ""}')
    assert publish(root, weights(2)).live
    with announced(root, "grpc://127.0.0.1:9", "", 2), pytest.raises(PublishError, match="version 2 stays live"):
        publish(root, weights(3))
    assert live_number(root) == 2
    assert not (root / SERVER_FILE).exists()


def test_versions_lie_side_by_side_and_old_ones_go(tmp_path: Path, weights: Callable[[int], Path]) -> None:
    root = tmp_path / "repository"
    for seed in (1, 2, 3):
        publish(root, weights(seed), keep=2)
    assert [(v.number, v.live, v.facts["source"]) for v in versions(root)] == [
        (2, False, "2.safetensors"),
        (3, True, "3.safetensors"),
    ]
    assert roll_back(root).number == 2
    assert [v.live for v in versions(root)] == [True, False]
    with pytest.raises(PublishError, match=r"a whole version older than the live one \(2\)"):
        roll_back(root)
    with pytest.raises(PublishError, match=r"one of the versions \[2, 3\] .* but got 7"):
        roll_back(root, 7)
    assert roll_back(root, 3).number == 3


@pytest.mark.parametrize("damage", ["cut", "missing", "added", "manifest"])
def test_a_damaged_live_version_does_not_start(tmp_path: Path, weights: Callable[[int], Path], damage: str) -> None:
    root = tmp_path / "repository"
    folder = root / "spade" / str(publish(root, weights(1)).number)
    file = folder / "weights.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "missing":
        file.unlink()
    elif damage == "added":
        (folder / "model2.py").touch()
    else:
        (folder / "manifest.json").write_text('{"facts": {}')
    with (
        pytest.raises(PublishError, match=r"--roll-back"),
        serve(ServeOptions(repository=root, **FREE_PORTS)),
    ):
        pass
    assert versions(root)[0].fault


def test_an_interrupted_publication_leaves_nothing(
    tmp_path: Path, weights: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository"
    publish(root, weights(1))
    before = sorted(root.rglob("*"))

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.triton.repository.write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(root, weights(2))
    assert sorted(root.rglob("*")) == before
    assert check_live(root).number == 1


def test_a_publication_killed_half_way_is_finished_at_the_next_start(
    tmp_path: Path, weights: Callable[[int], Path]
) -> None:
    root = tmp_path / "repository"
    folder = root / "spade" / str(publish(root, weights(1)).number)
    (root / "spade_image" / "config.pbtxt").write_text('name: "spade_image"')
    assert check_live(root).number == 1
    assert (root / "spade_image" / "config.pbtxt").read_bytes() == (folder / "spade_image.pbtxt").read_bytes()


def test_an_empty_repository_is_said(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="expected a published version"):
        check_live(tmp_path)
