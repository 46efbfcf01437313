"""Mean |a - b| and its gradient in one pass each over the two, whatever autocast would make of it.

PyTorch's `l1_loss` runs in float32 under autocast: at bf16 it copies both maps, and keeps two float32 maps more for the
gradient. Here the differences are summed in float32 a slice at a time, which stays in the cache, and nothing but a and
b is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spade_core.codebook.modulate import as_rows, slices


def mean_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean |a - b| of two maps [N, C, h, w], a float32 scalar (float64 of float64).

    Only a has a gradient: sign(a - b) / size.
    """
    out: Tensor = _MeanDifference.apply(a, b)  # type: ignore[no-untyped-call]
    return out


class _MeanDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        first, second = as_rows(a), as_rows(b)
        total = torch.zeros((), dtype=wide, device=a.device)
        for part in slices(first):
            total += torch.sub(first[part].to(wide), second[part]).abs_().sum()
        return total / a.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        a, b = ctx.saved_tensors
        first, second = as_rows(a), as_rows(b)
        out = torch.empty(a.shape, dtype=a.dtype, device=a.device, memory_format=torch.channels_last)
        written = as_rows(out)
        scale = (grad / a.numel()).to(a.dtype)
        for part in slices(first):
            torch.mul(torch.sign(first[part] - second[part]), scale, out=written[part])
        return out, None
