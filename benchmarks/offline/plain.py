"""The peer of the Ray pool: the same painters in plain processes, each with its share of the batches from the start."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.offline.drawings import Batch, Recipe
from serving.offline.painter import Painter, Setting


@dataclass(frozen=True)
class Finished:
    """A batch: the monotonic clock when it was reported, who drew it, and its images."""

    at_s: float
    who: Any
    images: int


class PlainError(RuntimeError):
    """A process ended before it had drawn its share."""


def draw_in_processes(batches: Sequence[Batch], setting: Setting, recipe: Recipe, processes: int) -> list[Finished]:
    """Draw every batch in `processes` processes that start at once. Raises PlainError."""
    context = multiprocessing.get_context("spawn")
    reports: Any = context.SimpleQueue()
    workers = [
        context.Process(target=_draw, args=(list(batches[number::processes]), setting, recipe, number, reports))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    finished: list[Finished] = []
    while len(finished) < len(batches):
        if any(worker.exitcode for worker in workers):
            raise PlainError("[offline] expected every process to draw its share but one ended; its reason is above")
        if reports.empty():
            time.sleep(0.001)
        else:
            finished.append(reports.get())
    for worker in workers:
        worker.join()
    return finished


def _draw(batches: list[Batch], setting: Setting, recipe: Recipe, number: int, reports: Any) -> None:
    painter = Painter(setting, recipe)
    for batch in batches:
        if failed := painter.draw(batch):
            raise RuntimeError(f"[offline] expected every map to be drawn but {failed}")
        reports.put(Finished(time.monotonic(), number, len(batch)))
