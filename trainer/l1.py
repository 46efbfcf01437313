"""Mean |a - b| and its gradient in one pass each over the two, whatever autocast would make of it.

PyTorch's `l1_loss` runs in float32 under autocast: at bf16 it copies both maps, and keeps two float32 maps more for the
gradient. Here the differences are summed in float32 a slice at a time, which stays in the cache, and nothing but a and
b is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

SLICE = 1 << 17  # values


def mean_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean |a - b| of two tensors of one shape, a float32 scalar (float64 of float64).

    Only a has a gradient: sign(a - b) / size.
    """
    out: Tensor = _MeanDifference.apply(a, b)  # type: ignore[no-untyped-call]
    return out


class _MeanDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        first, second = _values(a), _values(b)
        total = torch.zeros((), dtype=wide, device=a.device)
        for part in _slices(first):
            total += torch.sub(first[part].to(wide), second[part]).abs_().sum()
        return total / a.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        a, b = ctx.saved_tensors
        first, second = _values(a), _values(b)
        out = torch.empty_like(first)
        scale = (grad / a.numel()).to(a.dtype)
        for part in _slices(first):
            torch.mul(torch.sign(first[part] - second[part]), scale, out=out[part])
        if a.dim() == 4:  # back from channels last
            return out.view(a.shape[0], a.shape[2], a.shape[3], a.shape[1]).permute(0, 3, 1, 2), None
        return out.view(a.shape), None


def _values(x: Tensor) -> Tensor:
    """All values in one row, without a copy of channels-last maps."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1)


def _slices(values: Tensor) -> Iterator[slice]:
    step = SLICE if values.device.type == "cpu" else max(1, values.numel())
    for start in range(0, values.numel(), step):
        yield slice(start, start + step)
