"""How far a change of a label map reaches: a rectangle of each map between the convs, and what it costs to redo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kernels.rectangles import EMPTY, Rectangle
from serving.engines.contract import changed_rectangle
from spade_core.config import GeneratorConfig
from spade_core.models.shapes import block_widths
from spade_core.types import Symbols

Sizes = Sequence[tuple[int, int]]


class Block(Protocol):
    """Where a residual block of any engine stands: its level; 1 where its input is first upsampled by 2, else 0."""

    @property
    def level(self) -> int: ...

    @property
    def shift(self) -> int: ...


def changed_symbols(before: Symbols, after: Symbols, sizes: Sizes) -> list[Rectangle]:
    """Symbols [H, W] of two maps of one size -> for each level, the pixels whose NEAREST sample has changed."""
    at_full_size = changed_rectangle(before, after)
    if not at_full_size.area:
        return [EMPTY for _ in sizes]
    differs = before[at_full_size.slices] != after[at_full_size.slices]
    found = []
    for height, _ in sizes:
        step = len(before) // height
        top, left = (-(-edge // step) for edge in at_full_size[:2])  # the first samples within the rectangle
        sampled = differs[top * step - at_full_size.top :: step, left * step - at_full_size.left :: step]
        part = changed_rectangle(np.zeros_like(sampled), sampled) if sampled.size else EMPTY
        moved = Rectangle(part.top + top, part.left + left, part.bottom + top, part.right + left)
        found.append(moved if part.area else EMPTY)
    return found


def changed_patches(changed: Sequence[Rectangle], sizes: Sizes, config: GeneratorConfig) -> list[Rectangle]:
    """For each level, the pixels whose patch holds a changed symbol."""
    border = 2 * (config.spade_kernel // 2)
    return [area.grown(border, *size) for area, size in zip(changed, sizes, strict=True)]


def changed_start(changed: Rectangle, restyled: bool, size: tuple[int, int], config: GeneratorConfig) -> Rectangle:
    """The pixels of the start map that change: it is made of the style, or of the 3x3 symbols around each pixel."""
    if config.style:
        return Rectangle.whole(*size) if restyled else EMPTY
    return changed.grown(1, *size)


def reached_maps(
    start: Rectangle, patches: Sequence[Rectangle], blocks: Sequence[Block], sizes: Sizes
) -> list[Rectangle]:
    """The pixels that a change reaches: of the start map, of the two maps that each block makes, and of the image.

    Args:
        start: pixels of the start map that change.
        patches: for each level, the pixels whose patch has changed.
        blocks: in the order in which they run, without instance norm, which spreads every change over the map.

    A conv of 3x3 reaches one pixel further. The shortcut and the residual reach no further than the two convs. The
    result is rounded outwards to even edges, since the kernels make upsampled pixels in squares of four.
    """
    x = start
    reached = [(start, sizes[0])]
    for block in blocks:
        size = sizes[block.level]
        dx = (x.upsampled(block.shift) | patches[block.level]).grown(1, *size)
        x = dx.grown(1, *size)
        reached += [(dx, size), (x, size)]
    reached.append((x.grown(1, *sizes[-1]), sizes[-1]))
    return [_even(area, size) for area, size in reached]


def _even(area: Rectangle, size: tuple[int, int]) -> Rectangle:
    height, width = size
    return Rectangle(
        area.top // 2 * 2,
        area.left // 2 * 2,
        min(-(-area.bottom // 2) * 2, height),
        min(-(-area.right // 2) * 2, width),
    )


def whole_maps(blocks: Sequence[Block], sizes: Sizes) -> list[Rectangle]:
    """The rectangles of `reached_maps` where everything changes."""
    of_blocks = [Rectangle.whole(*sizes[block.level]) for block in blocks for _ in range(2)]
    return [Rectangle.whole(*sizes[0]), *of_blocks, Rectangle.whole(*sizes[-1])]


def conv_macs(reached: Sequence[Rectangle], config: GeneratorConfig) -> int:
    """Multiply-adds of the convs that make these rectangles of the maps of `reached_maps`.

    The start map is left out: it is a matrix product, or a sum of table rows.
    """
    last = list(block_widths(config).values())[-1][1]
    per_pixel = [0]
    for channels, out in block_widths(config).values():
        middle = min(channels, out)
        per_pixel += [9 * channels * middle, 9 * middle * out + (channels * out if channels != out else 0)]
    per_pixel.append(9 * last * 3)
    return sum(area.area * macs for area, macs in zip(reached, per_pixel, strict=True))
