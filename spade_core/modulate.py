"""a[index] * norm(x) + b[index], the step in which the codebook form meets the image, and its gradient.

What is kept for the gradient is x and the codebook: neither gamma and beta at every pixel nor norm(x). Training's batch
norm is folded into the entries once its statistics are known, y = (a / s) * x + (b - a * m / s), and so is its
gradient: the means over all pixels that it needs are sums over the codebook. On the CPU the gathered rows are made a
slice at a time, so that they stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Values of a slice: a few such buffers fit a core's second-level cache.
SLICE = 1 << 17


def modulate(x: Tensor, entries: Tensor, index: Tensor, norm: nn.Module | None) -> Tensor:
    """a[index] * norm(x) + b[index]: x [N, C, h, w] (channels last), entries [U5, 2C], index [N, h, w]."""
    training = torch.is_grad_enabled() and (x.requires_grad or entries.requires_grad)
    if not training:
        return _apply(x if norm is None else norm(x), entries, index)
    out: Tensor
    if type(norm) is nn.BatchNorm2d and norm.training:
        out = _NormModulate.apply(x, entries, index, norm)  # type: ignore[no-untyped-call]
    else:
        out = _Modulate.apply(x if norm is None else norm(x), entries, index)  # type: ignore[no-untyped-call]
    return out


def _apply(x: Tensor, entries: Tensor, index: Tensor) -> Tensor:
    """entries [U5, 2C] at x's own precision, a slice of pixels at a time."""
    # Written into a tensor of its own: a view could not be changed in place by what comes next.
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows, written, pixels = _as_rows(x), _as_rows(out), index.flatten()
    entries = entries.to(x.dtype)
    for part in _slices(rows):
        a, b = entries.index_select(0, pixels[part]).chunk(2, dim=1)  # [.., C] each
        torch.addcmul(b, a, rows[part], out=written[part])
    return out


class _Modulate(torch.autograd.Function):
    """`modulate` without a norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, entries: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(x, entries, index)
        return _apply(x, entries, index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, entries, index = ctx.saved_tensors
        rows, flat, pixels = _as_rows(x), _as_rows(grad), index.flatten()
        out = torch.empty(x.shape, dtype=grad.dtype, device=x.device, memory_format=torch.channels_last)
        written, a = _as_rows(out), entries[:, : x.shape[1]].to(flat.dtype)
        for part in _slices(rows):
            torch.mul(flat[part], a.index_select(0, pixels[part]), out=written[part])
        sums = _sum_by_entry(flat * rows, pixels, entries), _sum_by_entry(flat, pixels, entries)
        return out, torch.cat(sums, dim=1).to(entries.dtype), None


class _NormModulate(torch.autograd.Function):
    """`modulate` with batch norm in training: mean m and deviation s over all N*h*w pixels, per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, entries: Tensor, index: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
        rate = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        mean, variance = torch.batch_norm_update_stats(x, norm.running_mean, norm.running_var, rate)
        rstd = torch.rsqrt(variance + norm.eps)
        a, b = entries.to(rstd.dtype).chunk(2, dim=1)  # [U5, C] each
        scaled = a * rstd
        ctx.save_for_backward(x, entries, index, mean, rstd)
        return _apply(x, torch.cat([scaled, b - scaled * mean], dim=1), index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, entries, index, mean, rstd = ctx.saved_tensors
        rows, flat, pixels = _as_rows(x), _as_rows(grad), index.flatten()
        product = torch.empty(rows.shape, dtype=rstd.dtype, device=x.device)
        for part in _slices(rows):
            torch.mul(rows[part] - mean, flat[part], out=product[part])
        for_a = _sum_by_entry(product, pixels, entries) * rstd  # [U5, C]
        for_b = _sum_by_entry(flat, pixels, entries)
        # With y = a * z + b and z = (x - m) / s: dL/dx = (a * g - mean(a * g) - z * mean(a * g * z)) / s.
        a = entries[:, : x.shape[1]].to(rstd.dtype)
        level = (a * for_b).sum(0) / rows.shape[0] * rstd
        slope = (a * for_a).sum(0) / rows.shape[0] * rstd.square()
        scaled = (a * rstd).to(flat.dtype)
        out = torch.empty(x.shape, dtype=grad.dtype, device=x.device, memory_format=torch.channels_last)
        written = _as_rows(out)
        for part in _slices(rows):
            line = torch.addcmul(level, rows[part] - mean, slope)  # [.., C]
            torch.sub(flat[part] * scaled.index_select(0, pixels[part]), line, out=written[part])
        return out, torch.cat([for_a, for_b], dim=1).to(entries.dtype), None, None


def _sum_by_entry(values: Tensor, pixels: Tensor, entries: Tensor) -> Tensor:
    """Sum values [N*h*w, C] over the pixels of each entry: [U5, C].

    The sum is long: never in bfloat16, where it stops growing, though autocast makes entries of it.
    """
    wide = torch.promote_types(entries.dtype, torch.float32)
    sums: Tensor = torch.ops.aten.embedding_dense_backward(values.to(wide), pixels, entries.shape[0], -1, False)
    return sums


def _slices(rows: Tensor) -> Iterator[slice]:
    count = rows.shape[0]
    step = max(1, SLICE // rows.shape[1]) if rows.device.type == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, start + step)


def _as_rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # [N*h*w, C]
