"""Pad a plan's tables to a few lengths, so that an engine sees the same shapes again.

A shape that repeats needs no new shape inference, and can be replayed as a CUDA graph. No index refers to the added
rows, so the image stays the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kernels.native import native
from kernels.ops.plan import Level

STEPS = 4  # lengths between two powers of two; at most a fifth of a long table is padding
LEAST = 64  # the shortest length


def bucket(rows: int, largest: int) -> int:
    """The length for a table of `rows`: LEAST or a multiple of a quarter of a power of two, and at most `largest`."""
    if rows <= LEAST:
        return min(LEAST, largest)
    step = 1 << max(0, (rows - 1).bit_length() - 1)
    step = max(1, step // STEPS)
    return min(largest, -(-rows // step) * step)


def padded(level: Level, rows3: int, rows5: int) -> Level:
    """A level whose tables have `rows3` and `rows5` rows, at least as many as now."""
    count3, count5 = len(level.patches3), len(level.patches5)
    patches3 = np.zeros((rows3, level.patches3.shape[1]), np.int32)  # symbol 0 always exists
    patches3[:count3] = level.patches3
    patches5 = np.full((rows5, level.patches5.shape[1]), rows3, np.int32)  # outside
    native.rebase(level.patches5, count3, 0, rows3, patches5[:count5])  # "outside" is the row after the last row
    return replace(level, patches3=patches3, patches5=patches5)


Rows = tuple[int, int]
"""Most rows of a level's two tables: U3, U5."""


def fits(levels: list[Level], most: list[Rows]) -> bool:
    """Whether every table of a plan has at most as many rows as an engine takes."""
    return all(
        len(level.patches3) <= rows3 and len(level.patches5) <= rows5
        for level, (rows3, rows5) in zip(levels, most, strict=True)
    )


def bucketed(levels: list[Level], most: list[Rows]) -> list[Level]:
    """Every level padded to buckets, for an engine that takes up to `most` rows; the plan `fits`."""
    return [
        padded(level, bucket(len(level.patches3), rows3), bucket(len(level.patches5), rows5))
        for level, (rows3, rows5) in zip(levels, most, strict=True)
    ]
