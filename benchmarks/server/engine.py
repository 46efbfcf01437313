"""The endless stream of label maps that the server is measured on, and the engine alone on the same stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common.maps import Maps, read_maps
from serving.engines.contract import Engine
from serving.engines.timings import Timings
from serving.triton.model_config import ModelOptions
from spade_core.types import Array

Inputs = tuple[Array, Array | None, Array | None]
"""(labels [N, H, W], instances [N, H, W] or None, style [N, 256] or None)."""


class Stream:
    """Hands out the images of the stream, each once."""

    def __init__(self) -> None:
        self.next = 0

    def requests(self, batch: int) -> Iterator[int]:
        """The first images of requests of this many, without end. One thread at a time."""
        while True:
            self.next += batch
            yield self.next - batch


def inputs_of(maps: Maps, first: int, count: int) -> Inputs:
    """Images first .. first + count - 1 of a stream in which no label map comes twice for a long time.

    They are the maps in turn, each time around shifted by one more column, then row: the engine keeps what it
    computed for a map, and a repeated one would cost the convs only.
    """
    of = [(k % len(maps.labels), k // len(maps.labels)) for k in range(first, first + count)]
    labels = np.stack([_shifted(maps.labels[i], turn) for i, turn in of])
    instances = None if maps.instances is None else np.stack([_shifted(maps.instances[i], turn) for i, turn in of])
    return labels, instances, None if maps.style is None else maps.style[[i for i, _ in of]]


def _shifted(one: Array, turn: int) -> Array:
    rows, columns = divmod(turn, one.shape[1])
    return np.roll(one, (rows, columns), axis=(0, 1))


Work = Callable[[int, Sequence[int], Sequence[int]], tuple[float, float]]


def load_work(model: ModelOptions, labels: Path | None) -> Work:
    """Load the engine; its work is batches of the sizes `before` and `timed`, from image `first` of the stream on.

    It gives the figures of `run_batches` for `timed`. Those before bring the engine's memory and cache to where the
    server's were.
    """
    from serving.engines.choose import load_engine

    engine = load_engine(model.engine, model.weights, model.preset, model.precision, model.threads)
    maps = read_maps(engine.config, labels)

    def work(first: int, before: Sequence[int], timed: Sequence[int]) -> tuple[float, float]:
        run_batches(engine, maps, first, before)
        return run_batches(engine, maps, first + sum(before), timed)

    return work


def run_batches(engine: Engine, maps: Maps, first: int, sizes: Sequence[int]) -> tuple[float, float]:
    """(seconds of the calls, seconds of them outside what the engine times) for batches of these sizes."""
    seconds, timings = 0.0, Timings()
    for size in sizes:
        inputs = inputs_of(maps, first, size)
        began = time.perf_counter()
        engine.synthesize(*inputs, timings)
        seconds += time.perf_counter() - began
        first += size
    return seconds, seconds - timings.plan_s - timings.codebook_s - timings.convs_s
