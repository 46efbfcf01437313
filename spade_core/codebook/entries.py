"""The codebook: an entry (a, b) for every distinct label patch of a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.ops.plan import Level
from spade_core.codebook.fold import Folded
from spade_core.codebook.modulate import ByEntry
from spade_core.models.symbol_table import embed

# Gathered rows hold nine hidden rows each. A slice of this many fits the cache, and bounds the memory when all patches
# differ.
GATHER_ROWS = 4096
# Matrix products get a multiple of this many rows. On the CPU, PyTorch compiles and keeps code for every new shape of a
# product, and the number of patches differs from map to map.
ROW_STEP = 256
# Products per tap are faster from this many windows per hidden row on; below, adding them up costs what they save. In
# bf16 the products are so cheap that they are never faster.
PER_TAP = 1.5


@dataclass(frozen=True)
class LevelTensors:
    """One level of a plan as tensors on the generator's device.

    Attributes:
        patches3: int32 [U3, k*k], symbols of each distinct patch.
        patches5: int32 [U5, k*k], rows of patches3; U3 means outside the image.
        index: int32 [N, h, w], rows of patches5.
        order: `by_entry` of the index. A gradient on the CPU needs it, and sorts the index itself if it is None.
    """

    patches3: Tensor
    patches5: Tensor
    index: Tensor
    order: ByEntry | None = None


def level_tensors(levels: Sequence[Level], device: torch.device) -> dict[tuple[int, int], LevelTensors]:
    """The plan's levels by (height, width), as tensors on `device`."""

    def tensor(array: object) -> Tensor:
        return torch.as_tensor(array, dtype=torch.int32).to(device)

    return {
        (level.index.shape[1], level.index.shape[2]): LevelTensors(
            tensor(level.patches3), tensor(level.patches5), tensor(level.index)
        )
        for level in levels
    }


def codebook(folded: Folded, level: LevelTensors, activation: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
    """The entry of every distinct patch [U5, 2C], a before b; `activation` lies between the two convs.

    a and b are 1 + gamma and beta of SPADE paper, equation 1, for a * norm(x) + b. Where `folded` has no norm, a and b
    include its statistics, for a * x + b.
    """
    actv = activation(embed(folded.table, folded.shared_bias, level.patches3))  # [U3, 128]
    return conv_of_windows(actv, folded.weight, folded.bias, level.patches5)


def conv_of_windows(values: Tensor, weight: Tensor, bias: Tensor, windows: Tensor) -> Tensor:
    """A conv at every distinct window: values [U3, in], weight [k*k * in, out], windows [U5, k*k] -> [U5, out].

    A window names rows of `values`, taps row-major; U3 means outside the image, where the conv pads with zeros.
    """
    values = F.pad(values, (0, 0, 0, 1))  # [U3 + 1, in]; the last row, outside, is zero
    half = values.dtype == torch.bfloat16 or torch.is_autocast_enabled(values.device.type)
    if not half and PER_TAP * values.shape[0] <= windows.shape[0]:
        return _per_tap(values, weight, bias, windows)
    entries = []
    for some in torch.split(windows, GATHER_ROWS):  # [<= GATHER_ROWS, k*k]
        rows = some.shape[0]
        padded = F.pad(some, (0, 0, 0, -rows % ROW_STEP))
        gathered = _gather(values, padded.flatten()).view(padded.shape[0], -1)  # [.., k*k * in]
        entries.append(torch.addmm(bias, gathered, weight)[:rows])
    return entries[0] if len(entries) == 1 else torch.cat(entries)


def _gather(actv: Tensor, rows: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(actv.device.type):
        return actv.index_select(0, rows)
    gathered: Tensor = _GatherHalf.apply(actv, rows)  # type: ignore[no-untyped-call]
    return gathered


class _GatherHalf(torch.autograd.Function):
    """Gather rows in autocast's dtype; their gradients are summed in the dtype of actv.

    Casting before gathering moves half the bytes of autocast, which would cast after.
    """

    @staticmethod
    def forward(ctx: Any, actv: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape, ctx.dtype = actv.shape, actv.dtype
        return actv.to(torch.get_autocast_dtype(actv.device.type)).index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape, dtype=ctx.dtype).index_add_(0, rows, grad.to(ctx.dtype)), None


def _per_tap(values: Tensor, weight: Tensor, bias: Tensor, windows: Tensor) -> Tensor:
    """Multiply each row with every tap, then add the products of each window: U3 rows multiplied, not U5."""
    taps, width_in, width = windows.shape[1], values.shape[1], weight.shape[1]
    if weight.is_contiguous():
        weight = weight.view(taps, width_in, width).transpose(0, 1).reshape(width_in, -1)  # [128, k*k * 2C]
    else:
        weight = weight.t().view(width, taps, width_in).transpose(0, 1).reshape(-1, width_in).t()
    products = (values @ weight).to(values.dtype).view(values.shape[0] * taps, -1)  # [(U3 + 1) * k*k, 2C]
    rows = windows * taps + torch.arange(taps, dtype=windows.dtype, device=windows.device)  # row u * k*k + t
    return F.embedding_bag(rows, products, mode="sum").add_(bias)
