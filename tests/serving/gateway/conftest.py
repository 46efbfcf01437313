"""A real gateway before a real Triton on the tiny model: what `spade serve` runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import FREE_PORTS

from serving.gateway.pair import Pair, serve_pair
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions


@pytest.fixture(scope="session")
def gateway() -> Iterator[Pair]:
    """The demo preset, 16 classes, 256x256, with a style input: seeded weights, one thread and float32."""
    with serve_pair(ServeOptions(ModelOptions(precision="fp32", threads=1, decoders=1), **FREE_PORTS)) as pair:
        yield pair


@pytest.fixture(scope="session")
def tiny_gateway(tiny_weights: Path) -> Iterator[Pair]:
    """The tiny model, 64x64 with 8 classes, which reads instance maps."""
    model = ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1)
    with serve_pair(ServeOptions(model, **FREE_PORTS)) as pair:
        yield pair
