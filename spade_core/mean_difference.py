"""Mean |a - b| and its gradient, each in one pass over a and b.

Under autocast, PyTorch's `l1_loss` copies bfloat16 maps to float32 and keeps two float32 maps for the gradient. Here a
slice at a time is summed in float32 while it is in the cache, and only a and b are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spade_core.codebook.modulate import as_rows, slices


def mean_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean |a - b| of two maps [N, C, h, w]: a scalar of float32, or of float64 where a or b is float64.

    The gradient of a is sign(a - b) / size; b has none.
    """
    out: Tensor = _MeanDifference.apply(a, b)  # type: ignore[no-untyped-call]
    return out


class _MeanDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        first, second = as_rows(a), as_rows(b)
        total = torch.zeros((), dtype=dtype, device=a.device)
        for part in slices(first):
            total += torch.sub(first[part].to(dtype), second[part]).abs_().sum()
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
