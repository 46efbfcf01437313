"""a[index] * norm(x) + b[index], the step in which the codebook form meets the image, and its gradient.

What is kept for the gradient is x and the codebook: neither gamma and beta at every pixel nor norm(x). Training's batch
norm is folded into the entries once its statistics are known, y = (a / s) * x + (b - a * m / s), and so is its
gradient: the means over all pixels that it needs are sums over the codebook. On the CPU what is gathered is made a
slice at a time, so that it stays in the cache, and the sums read the pixels in the order of their entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.on_cuda import library_for, modulate_on_kernels

# Values of a slice: a few such buffers fit a core's second-level cache.
SLICE = 1 << 17


@dataclass(frozen=True)
class ByEntry:
    """The pixels of an index [N, h, w] by their entries: pixels int32 [N*h*w], those of entry u from starts[u] on."""

    pixels: Tensor
    starts: Tensor

    def to(self, device: torch.device) -> ByEntry:
        """The same on `device`."""
        return ByEntry(self.pixels.to(device), self.starts.to(device))


def by_entry(index: Tensor, entries: int) -> ByEntry:
    """Sort the pixels of an index, whose rows are 0 .. entries - 1; within an entry they keep their order."""
    rows = index.flatten()
    counts = torch.bincount(rows, minlength=entries)
    return ByEntry(torch.argsort(rows, stable=True).int(), (counts.cumsum(0) - counts).int())


def modulate(x: Tensor, entries: Tensor, index: Tensor, norm: nn.Module | None, order: ByEntry | None = None) -> Tensor:
    """a[index] * norm(x) + b[index]: x [N, C, h, w] (channels last), entries [U5, 2C], index [N, h, w].

    On a CUDA device the installed CUDA kernels compute it, where there are any. `order` is `by_entry` of the index; a
    gradient without it sorts the index itself.
    """
    library = library_for(x)
    if library is not None:
        return modulate_on_kernels(x, entries, index, norm, None if order is None else order.pixels, library)
    training = torch.is_grad_enabled() and (x.requires_grad or entries.requires_grad)
    if not training:
        return _apply(x if norm is None else norm(x), entries, index)
    out: Tensor
    if type(norm) is nn.BatchNorm2d and norm.training:
        out = _NormModulate.apply(x, entries, index, order, norm)  # type: ignore[no-untyped-call]
    else:
        out = _Modulate.apply(x if norm is None else norm(x), entries, index, order)  # type: ignore[no-untyped-call]
    return out


def _apply(x: Tensor, entries: Tensor, index: Tensor) -> Tensor:
    """entries [U5, 2C] at x's own precision, a slice of pixels at a time."""
    # Written into a tensor of its own: a view could not be changed in place by what comes next.
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows, written, pixels = as_rows(x), as_rows(out), index.flatten()
    entries = entries.to(x.dtype)
    for part in slices(rows):
        a, b = entries.index_select(0, pixels[part]).chunk(2, dim=1)  # [.., C] each
        torch.addcmul(b, a, rows[part], out=written[part])
    return out


class _Modulate(torch.autograd.Function):
    """`modulate` without a norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, entries: Tensor, index: Tensor, order: ByEntry | None) -> Tensor:
        ctx.save_for_backward(x, entries, index)
        ctx.order = order
        return _apply(x, entries, index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, entries, index = ctx.saved_tensors
        rows, flat, pixels = as_rows(x), as_rows(grad), index.flatten()
        out = torch.empty(x.shape, dtype=grad.dtype, device=x.device, memory_format=torch.channels_last)
        written, a = as_rows(out), entries[:, : x.shape[1]].to(flat.dtype)
        for part in slices(rows):
            torch.mul(flat[part], a.index_select(0, pixels[part]), out=written[part])
        sums = _sums_by_entry(rows, flat, index, ctx.order, entries, None)
        return out, torch.cat(sums, dim=1).to(entries.dtype), None, None


class _NormModulate(torch.autograd.Function):
    """`modulate` with batch norm in training: mean m and deviation s over all N*h*w pixels, per channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, entries: Tensor, index: Tensor, order: ByEntry | None, norm: nn.BatchNorm2d
    ) -> Tensor:
        ctx.order = order
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, entries, index, mean, rstd = ctx.saved_tensors
        rows, flat, pixels = as_rows(x), as_rows(grad), index.flatten()
        for_a, for_b = _sums_by_entry(rows, flat, index, ctx.order, entries, mean)  # [U5, C] each
        for_a = for_a * rstd
        # With y = a * z + b and z = (x - m) / s: dL/dx = (a * g - mean(a * g) - z * mean(a * g * z)) / s.
        a = entries[:, : x.shape[1]].to(rstd.dtype)
        level = (a * for_b).sum(0) / rows.shape[0] * rstd
        slope = (a * for_a).sum(0) / rows.shape[0] * rstd.square()
        constant, scaled = mean * slope - level, a * rstd
        out = torch.empty(x.shape, dtype=grad.dtype, device=x.device, memory_format=torch.channels_last)
        written = as_rows(out)
        for part in slices(rows):
            line = torch.addcmul(constant, rows[part].to(rstd.dtype), -slope)  # [.., C]
            line.addcmul_(flat[part].to(rstd.dtype), scaled.index_select(0, pixels[part]))
            written[part] = line
        return out, torch.cat([for_a, for_b], dim=1).to(entries.dtype), None, None, None


def _sums_by_entry(
    x: Tensor, grad: Tensor, index: Tensor, order: ByEntry | None, entries: Tensor, mean: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums of (x - mean) * grad and of grad [N*h*w, C] over the pixels of each entry: [U5, C] each, at least float32.

    They add up in float32 whatever they are of: a long sum in bfloat16 stops growing.
    """
    wide = torch.promote_types(entries.dtype, torch.float32)
    products = torch.empty_like(grad)
    for part in slices(x):
        values = x[part].to(wide, copy=True)
        if mean is not None:
            values -= mean
        products[part] = values.mul_(grad[part].to(wide))
    if x.device.type != "cpu":  # where many pixels of one entry would wait for each other
        sums = [
            torch.ops.aten.embedding_dense_backward(terms.to(wide), index.flatten(), len(entries), -1, False)
            for terms in (products, grad)
        ]
    else:
        order = order or by_entry(index, len(entries))
        sums = [F.embedding_bag(order.pixels, terms, order.starts, mode="sum").to(wide) for terms in (products, grad)]
    return sums[0], sums[1]


def slices(rows: Tensor) -> Iterator[slice]:
    """Parts of rows [.., C] that stay in the cache; on a GPU, where they need not, one of all."""
    count = rows.shape[0]
    step = max(1, SLICE // rows.shape[1]) if rows.device.type == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, start + step)


def as_rows(x: Tensor) -> Tensor:
    """[N, C, h, w] -> [N*h*w, C], of channels-last maps a view."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
