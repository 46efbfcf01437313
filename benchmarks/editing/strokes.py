"""Strokes of a painter between two pointer events, on real label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.common.maps import Maps
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import resize_nearest_centred
from spade_core.types import Array

LENGTHS = {2: 10, 4: 20, 8: 40, 16: 60}  # of a stroke, by its radius, pixels


@dataclass(frozen=True)
class Edit:
    """The map before and after one stroke: labels uint8 [1, H, W], and instances int32 [1, H, W] or None."""

    before: tuple[Array, Array | None]
    after: tuple[Array, Array | None]


def scaled(maps: Maps, size: int) -> list[tuple[Array, Array | None]]:
    """Each map at size x size, alone."""
    found = []
    for i, labels in enumerate(maps.labels):
        instances = None if maps.instances is None else resize_nearest_centred(maps.instances[i], size, size)[None]
        found.append((resize_nearest_centred(labels, size, size)[None], instances))
    return found


def edits(
    maps: Sequence[tuple[Array, Array | None]], radius: int, length: int, config: GeneratorConfig, seed: int
) -> Iterator[Edit]:
    """Strokes of one size without end, on the maps in turn: a random place, direction and class, an object of its own.

    The stroke is the area within `radius` of a straight line of `length` pixels, all of it within the map.
    """
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        labels, instances = maps[number % len(maps)]
        height, width = labels.shape[1:]
        angle = rng.uniform(0, 2 * np.pi)
        step = length / 2 * np.array([np.sin(angle), np.cos(angle)])
        low, high = np.abs(step) + radius, (height, width) - np.abs(step) - radius - 1
        centre = rng.uniform(low, high)
        area = _near_line(height, width, centre - step, centre + step, radius)
        after = labels.copy()
        after[0][area] = rng.integers(0, config.label_nc)
        after_instances = None if instances is None else instances.copy()
        if after_instances is not None:
            after_instances[0][area] = int(after_instances.max()) + 1
        yield Edit((labels, instances), (after, after_instances))
        number += 1


def _near_line(height: int, width: int, start: Array, end: Array, radius: float) -> Array:
    """bool [H, W]: the pixels within `radius` of a line from start to end, both (row, column)."""
    down, right = np.arange(height)[:, None] - start[0], np.arange(width) - start[1]  # [H, 1], [W]
    (rows, columns), squared = end - start, float(((end - start) ** 2).sum())
    share = np.clip((down * rows + right * columns) / max(squared, 1e-9), 0, 1)  # [H, W], along the line
    near: Array = np.hypot(down - share * rows, right - share * columns) <= radius
    return near
