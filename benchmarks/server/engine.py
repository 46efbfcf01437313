"""The engine alone, on the same stream of label maps as the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common.maps import Maps, read_maps
from benchmarks.common.stream import inputs_of
from serving.engines.contract import Engine
from serving.engines.timings import Timings
from serving.triton.model_config import ModelOptions

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
