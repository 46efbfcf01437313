"""Real Triton servers for the tests: one with the demo preset, one with a tiny model that reads instance maps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from served import FREE_PORTS, TINY

from serving.engines.choose import load_engine
from serving.engines.contract import Engine
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions, Server, serve
from spade_core.config import preset
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_encoder, seeded_generator

HERE = Path(__file__).parent
# Fixtures of a server that several files share, and the name of their group.
SHARED = {
    "demo_server": "servers",
    "tiny_server": "servers",
    "gateway": "gateways",
    "tiny_gateway": "gateways",
    "studio": "chromium",
}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests of a file, and all files of a shared server: else each worker starts each server."""
    ours = [item for item in items if HERE in item.path.parents]
    groups = {item.path: item.path.stem for item in ours}
    for item in ours:
        for fixture in SHARED.keys() & set(getattr(item, "fixturenames", ())):
            groups[item.path] = SHARED[fixture]
    for item in ours:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(groups[item.path]))


@pytest.hookimpl(trylast=True)  # after fixtures that use a server
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """In a parallel run a shared server ends with its group: an idle one takes three percent of a core to the end.

    pytest has no scope for that.
    """
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    if not parallel or nextitem is None or _group(nextitem) == _group(item) or _group(item) not in SHARED.values():
        return
    for name in SHARED:
        for fixture in item.session._fixturemanager.getfixturedefs(name, item) or ():
            fixture.finish(item._request)  # type: ignore[attr-defined]


def _group(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("xdist_group")
    return None if marker is None else marker.args[0]


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without style input, with instance edges and don't care, for 64x64 maps of 8 classes."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(path, seeded_generator(TINY))
    return path


@pytest.fixture(scope="session")
def demo_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo preset in a quarter of its width: the same inputs and outputs, drawn in less time."""
    path = tmp_path_factory.mktemp("weights") / "demo.safetensors"
    config = replace(preset("demo"), nf=4)
    save(path, seeded_generator(config), seeded_encoder(config.nf))
    return path


@pytest.fixture(scope="session")
def demo_server(demo_weights: Path) -> Iterator[Server]:
    """The demo preset: style input, 16 classes, 256x256. One thread and float32, as `demo_engine` has."""
    model = ModelOptions(demo_weights, precision="fp32", threads=1, queue_delay_us=20_000)
    with serve(ServeOptions(model, **FREE_PORTS)) as server:
        yield server


@pytest.fixture(scope="session")
def demo_engine(demo_weights: Path) -> Engine:
    return load_engine("torch", demo_weights, "demo", "fp32", 1)


@pytest.fixture(scope="session")
def tiny_server(tiny_weights: Path) -> Iterator[Server]:
    """The tiny model, with a queue of four label maps and a batch delay long enough for a test's requests to meet."""
    model = ModelOptions(tiny_weights, precision="fp32", threads=1, queue_size=4, queue_delay_us=300_000, decoders=1)
    with serve(ServeOptions(model, **FREE_PORTS)) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_engine(tiny_weights: Path) -> Engine:
    return load_engine("torch", tiny_weights, "demo", "fp32", 1)
