"""A conv on a map that depends on the label map alone: computed once for each distinct patch of labels.

The map may be the segmap, a map of region styles, or what another such conv and an activation made of one of them. Each
call compares every pixel of the map with one pixel of the same region or patch; a map that differs goes through the
conv itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.entries import conv_of_windows
from spade_core.codebook.modulate import SLICE
from spade_core.drop_in.maps import KnownMap
from spade_core.drop_in.parameters import by_tap, weight_and_bias
from spade_core.drop_in.structure import Conv
from spade_core.models.symbol_table import embed


@dataclass(frozen=True, eq=False)
class _Groups:
    """Pixels that should hold the same values: group numbers int64 [pixels], and a pixel of each, -1 where none is."""

    numbers: Tensor
    pixel: Tensor

    @staticmethod
    def of(numbers: Tensor, count: int) -> _Groups:
        places = torch.arange(len(numbers), device=numbers.device)
        pixel = torch.full((count,), len(numbers), dtype=torch.int64, device=numbers.device)
        pixel.scatter_reduce_(0, numbers, places, "amin")
        return _Groups(numbers, torch.where(pixel < len(numbers), pixel, -1))

    def values(self, x: Tensor) -> Tensor | None:
        """The values [groups, C] of a map [N, C, pixels], 0 for groups without a pixel; None if a group has several."""
        found = x[self.pixel // x.shape[2], :, self.pixel % x.shape[2]]  # [groups, C]; -1 is some pixel
        found = found * (self.pixel >= 0)[:, None].to(found.dtype)
        with torch.no_grad():
            step = max(1, SLICE // x.shape[2])
            of_images = self.numbers.view(len(x), -1)
            for start in range(0, x.shape[1], step):
                part = found[:, start : start + step].t().contiguous()  # [C', groups]
                for image, numbers in zip(x[:, start : start + step], of_images, strict=True):
                    if not torch.equal(part.index_select(1, numbers), image):
                        return None
        return found


class ConvByRegion(nn.Module):
    """Takes the place of a conv for the calls on one segmap."""

    def __init__(self, conv: Conv, known: KnownMap) -> None:
        super().__init__()
        self.conv, self.known = conv, known

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, *spatial] -> [N, out, *spatial]."""
        size = tuple(x.shape[2:])
        level = self.known.region_level(size, self.conv.kernel_size[0])
        patches3, patches5 = level.tensors.patches3.long(), level.tensors.patches5.long()
        centre = patches5.shape[1] // 2
        small = patches5[:, centre].index_select(0, level.tensors.index.flatten())  # [N * pixels], rows of patches3
        flat, count = x.flatten(2), len(x) * self.known.symbol_map.count
        values = _Groups.of(patches3[:, centre].index_select(0, small), count).values(flat)
        if values is not None:
            return self._spread(self._of_symbols(values, patches3), small, size)
        values = _Groups.of(small, len(patches3)).values(flat)
        if values is None:
            out: Tensor = self.conv(x)
            return out
        weight, bias = weight_and_bias(self.conv)
        rows = conv_of_windows(values, by_tap(weight).flatten(1).t(), bias, patches5)
        return self._spread(rows, level.tensors.index.flatten(), size)

    def _of_symbols(self, values: Tensor, patches3: Tensor) -> Tensor:
        """The conv at every patch [U3, out] of symbols with values [symbols, in]."""
        weight, bias = weight_and_bias(self.conv)
        table = values @ by_tap(weight).permute(1, 2, 0)  # [taps, symbols, out]
        return embed(F.pad(table, (0, 0, 0, 1)).flatten(0, 1), bias, patches3)

    def _spread(self, rows: Tensor, index: Tensor, size: tuple[int, ...]) -> Tensor:
        """Rows [U, out] at every pixel of an index [N * pixels] -> [N, out, *size], channels last."""
        return rows.index_select(0, index).view(-1, *size, rows.shape[1]).movedim(-1, 1)
