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
    """Hands out each image of the stream once.

    Attributes:
        next: number of the next image.
    """

    def __init__(self) -> None:
        self.next = 0

    def requests(self, batch: int) -> Iterator[int]:
        """The number of the first image of each request of `batch` images, without end. Not thread-safe."""
        while True:
            self.next += batch
            yield self.next - batch


def inputs_of(maps: Maps, first: int, count: int) -> Inputs:
    """Images first .. first + count - 1 of a stream that repeats no label map for a long time.

    The stream takes the maps in turn. Each time around, the maps are shifted by one more column, then by a row. The
    engine caches what it computes for a map, so a repeated map would cost the convs only.
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
    """Load the engine. Its work takes the first image, the batch sizes `before` and the batch sizes `timed`.

    The work returns the result of `run_batches` for the sizes `timed`. The sizes `before` run first and bring the
    engine's memory and cache to the state of the server's engine.
    """
    from serving.engines.choose import load_engine

    engine = load_engine(model.engine, model.weights, model.preset, model.precision, model.threads)
    maps = read_maps(engine.config, labels)

    def work(first: int, before: Sequence[int], timed: Sequence[int]) -> tuple[float, float]:
        run_batches(engine, maps, first, before)
        return run_batches(engine, maps, first + sum(before), timed)

    return work


def run_batches(engine: Engine, maps: Maps, first: int, sizes: Sequence[int]) -> tuple[float, float]:
    """Run batches of these sizes: (seconds of the calls, seconds of the calls outside the engine's own timings)."""
    seconds, timings = 0.0, Timings()
    for size in sizes:
        inputs = inputs_of(maps, first, size)
        began = time.perf_counter()
        engine.synthesize(*inputs, timings)
        seconds += time.perf_counter() - began
        first += size
    return seconds, seconds - timings.total_s
