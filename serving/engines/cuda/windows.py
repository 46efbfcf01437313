"""Which part of a map a conv may compute alone with the bits of the whole map.

A library's conv sums in an order that may depend on the sizes of its input, so the bits of a part may differ from the
bits of the whole map. A window is a part of a few fixed sizes, and each size of each conv is tried once, on the device
at hand: a conv whose window gives other bits runs on the whole map for ever. Orders of summation depend on sizes, not
on values, so the values of the trial decide for all values, if they let every order show: see `trial_values`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.rectangles import Rectangle

Size = tuple[int, int]

STEP = 8  # pixels; windows begin at multiples: even for upsampled reads, and where tiles of Winograd's convs begin
TRIED = (0, 8, 16, 24)  # where windows begin in a trial, beside the map's end


@dataclass(frozen=True)
class ConvShape:
    """A conv on maps of one size: channels in and out, kernel size, and height and width of the map."""

    channels: int
    out: int
    kernel: int
    size: Size

    @property
    def border(self) -> int:
        """Pixels on each side of an output pixel that the conv reads."""
        return self.kernel // 2

    def macs(self, window: Rectangle) -> int:
        """Multiply-adds of the conv on a window."""
        return window.area * self.channels * self.out * self.kernel**2


def conv(weight: Tensor, x: Tensor) -> Tensor:
    """The conv of a map, padded with zeros to the same size."""
    return F.conv2d(x, weight, padding=weight.shape[2] // 2)


def part(x: Tensor, area: Rectangle) -> Tensor:
    """An area of a map [N, C, H, W], as a view."""
    rows, columns = area.slices
    return x[..., rows, columns]


def window_around(area: Rectangle, border: int, size: Size) -> Rectangle:
    """The window in the map that a conv reads to make an area: it begins at a multiple of 8 or ends with the map.

    Its sides are those of `side_of`.
    """
    needed = area.grown(border, *size)
    top, bottom = _edges(needed.top, needed.bottom, size[0])
    left, right = _edges(needed.left, needed.right, size[1])
    return Rectangle(top, left, bottom, right)


def _edges(first: int, last: int, most: int) -> tuple[int, int]:
    first = first // STEP * STEP
    side = side_of(last - first, most)
    first = min(first, most - side)
    return first, first + side


def side_of(pixels: int, most: int) -> int:
    """The smallest side of a window with room for so many pixels: 8, 12, 16, 24, 32, 48, .., at most the map's."""
    side = STEP
    while side < pixels:
        side = side * 3 // 2 if side & (side - 1) == 0 else side * 4 // 3
    return min(side, most)


class Windows:
    """Knows which windows have the bits of the whole map.

    Args:
        run: computes a conv with the library's choice for a whole map, or for a window.
        dtype, device: of maps and weights.

    Attributes:
        refused: trials in which a window had other bits.
    """

    def __init__(
        self, run: Callable[[Tensor, Tensor, bool], Tensor], dtype: torch.dtype, device: torch.device
    ) -> None:  # fmt: skip
        self.run, self._dtype, self._device = run, dtype, device
        self._exact: dict[tuple[ConvShape, Size], bool] = {}
        self.refused = 0

    def of(self, shape: ConvShape, area: Rectangle) -> Rectangle:
        """The window that makes an area of the conv's output with the bits of the whole map; maybe the whole map."""
        whole = Rectangle.whole(*shape.size)
        window = window_around(area, shape.border, shape.size)
        if window == whole:
            return whole
        key = (shape, (window.height, window.width))
        if key not in self._exact:
            self._exact[key] = self._is_exact(shape, window)
            self.refused += not self._exact[key]
        return window if self._exact[key] else whole

    def _is_exact(self, shape: ConvShape, window: Rectangle) -> bool:
        """Whether windows of this size give the bits of the whole map, wherever they are tried."""
        x, weight = trial_values(shape, self._dtype, self._device)
        whole = self.run(weight, x, True)
        height, width = shape.size
        below, beside = height - window.height, width - window.width
        rows, columns = {*TRIED, below, window.top}, {*TRIED, beside, window.left}
        places = [(top, left) for top in rows for left in columns if top <= below and left <= beside]
        for top, left in places:
            of = Rectangle(top, left, top + window.height, left + window.width)
            made = self.run(weight, channels_last(part(x, of)), False)
            inner = inner_of(of, shape)
            if not torch.equal(_bits(part(made, moved(inner, of))), _bits(part(whole, inner))):
                return False
        return True


def inner_of(window: Rectangle, shape: ConvShape) -> Rectangle:
    """The pixels of a window that the conv makes right: all but the border, where the map goes on."""
    height, width = shape.size
    border = shape.border
    return Rectangle(
        window.top + (border if window.top else 0),
        window.left + (border if window.left else 0),
        window.bottom - (border if window.bottom < height else 0),
        window.right - (border if window.right < width else 0),
    )


def moved(area: Rectangle, window: Rectangle) -> Rectangle:
    """An area of a map, counted from a window's corner."""
    return Rectangle(
        area.top - window.top, area.left - window.left, area.bottom - window.top, area.right - window.left
    )  # fmt: skip


def channels_last(x: Tensor) -> Tensor:
    """A map in memory of its own, channels last."""
    return x.contiguous(memory_format=torch.channels_last)


def _bits(x: Tensor) -> Tensor:
    """The bits of a map, so that 0 and -0 differ."""
    return x.contiguous().view(torch.int16 if x.element_size() == 2 else torch.int32)


def trial_values(shape: ConvShape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """A map and weights whose exact sums are 0, so that an output is nothing but rounding and shows its order.

    Half of the channels repeat the other half, with negative weights, in a random order. The magnitudes of the products
    differ so much that partial sums round, and what is left of their rounding depends on when each product was added.
    """
    random = torch.Generator(device=device).manual_seed(0)
    half = shape.channels // 2

    def values(*size: int) -> Tensor:
        magnitudes = torch.exp2(torch.randint(-6, 7, size, generator=random, device=device).float())
        return torch.randn(size, generator=random, device=device) * magnitudes

    x, weight = values(1, half, *shape.size), values(shape.out, half, shape.kernel, shape.kernel)
    order = torch.randperm(2 * half, generator=random, device=device)
    x, weight = torch.cat([x, x], 1)[:, order], torch.cat([weight, -weight], 1)[:, order]
    if shape.channels > 2 * half:
        x, weight = F.pad(x, (0, 0, 0, 0, 0, 1)), F.pad(weight, (0, 0, 0, 0, 0, 1))
    return channels_last(x.to(dtype)), channels_last(weight.to(dtype))
