"""Modulation, a[index] * norm(x) + b[index] (SPADE paper, equation 1, through the codebook), and its gradient.

The gradient keeps x and the codebook. It needs neither norm(x) nor gamma and beta at every pixel. In training, batch
norm is folded into the entries once its mean m and deviation s are known: y = (a / s) * x + (b - a * m / s). The
gradient of batch norm needs means over all pixels; they are sums over the codebook. On the CPU, entries are gathered a
slice of pixels at a time, which stays in the cache, and the sums read the pixels in the order of their entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.on_cuda import library_for, modulate_on_kernels

# Values in a slice: a few buffers of this size fit a core's second-level cache.
SLICE = 1 << 17


@dataclass(frozen=True)
class ByEntry:
    """The pixels of an index [N, h, w], sorted by their entries.

    Attributes:
        pixels: int32 [N*h*w], positions of pixels.
        starts: int32 [entries]; the pixels of entry u begin at starts[u].
    """

    pixels: Tensor
    starts: Tensor

    def to(self, device: torch.device) -> ByEntry:
        """A copy on `device`."""
        return ByEntry(self.pixels.to(device), self.starts.to(device))


def by_entry(index: Tensor, entries: int) -> ByEntry:
    """Sort the pixels of an index with values 0 .. entries - 1; the pixels of one entry keep their order."""
    rows = index.flatten()
    counts = torch.bincount(rows, minlength=entries)
    return ByEntry(torch.argsort(rows, stable=True).int(), (counts.cumsum(0) - counts).int())


def modulate(x: Tensor, entries: Tensor, index: Tensor, norm: nn.Module | None, order: ByEntry | None = None) -> Tensor:
    """`a[index] * norm(x) + b[index]`, [N, C, h, w] or [N, C, d, h, w], channels last.

    On a CUDA device the installed CUDA kernels compute the map and its gradient, if there are any.

    Args:
        x: [N, C, h, w] or [N, C, d, h, w], channels last.
        entries: [U5, 2C], a before b.
        index: int32 [N, h, w] or [N, d*h, w], rows of entries.
        norm: a norm without affine parameters, or None when its statistics are in the entries.
        order: `by_entry` of the index. A gradient needs it, and sorts the index itself if it is None.
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
    """a[index] * x + b[index] at the precision of x, a slice of pixels at a time."""
    # A new tensor, since autograd forbids the next layer to change a view in place.
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=channels_last(x))
    rows, written, pixels = as_rows(x), as_rows(out), index.flatten()
    entries = entries.to(x.dtype)
    for part in slices(rows):
        a, b = entries.index_select(0, pixels[part]).chunk(2, dim=1)  # [.., C] each
        torch.addcmul(b, a, rows[part], out=written[part])
    return out


class _Modulate(torch.autograd.Function):
    """`modulate` without a norm: dL/dx = a * g, dL/da = sum of x * g, dL/db = sum of g over the pixels of an entry."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, entries: Tensor, index: Tensor, order: ByEntry | None) -> Tensor:
        ctx.save_for_backward(x, entries, index)
        ctx.order = order
        return _apply(x, entries, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, entries, index = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable(x, entries, index, grad, None), None, None
        rows, flat, pixels = as_rows(x), as_rows(grad), index.flatten()
        out = torch.empty(x.shape, dtype=grad.dtype, device=x.device, memory_format=channels_last(x))
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
        ctx.order, ctx.epsilon = order, norm.eps
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, entries, index, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable(x, entries, index, grad, ctx.epsilon), None, None, None
        rows, flat, pixels = as_rows(x), as_rows(grad), index.flatten()
        for_a, for_b = _sums_by_entry(rows, flat, index, ctx.order, entries, mean)  # [U5, C] each
        for_a = for_a * rstd
        # With y = a * z + b and z = (x - m) / s: dL/dx = (a * g - mean(a * g) - z * mean(a * g * z)) / s.
        a = entries[:, : x.shape[1]].to(rstd.dtype)
        level = (a * for_b).sum(0) / rows.shape[0] * rstd
        slope = (a * for_a).sum(0) / rows.shape[0] * rstd.square()
        constant, scaled = mean * slope - level, a * rstd
        out = torch.empty(x.shape, dtype=grad.dtype, device=x.device, memory_format=channels_last(x))
        written = as_rows(out)
        for part in slices(rows):
            line = torch.addcmul(constant, rows[part].to(rstd.dtype), -slope)  # [.., C]
            line.addcmul_(flat[part].to(rstd.dtype), scaled.index_select(0, pixels[part]))
            written[part] = line
        return out, torch.cat([for_a, for_b], dim=1).to(entries.dtype), None, None, None


def _differentiable(
    x: Tensor, entries: Tensor, index: Tensor, grad: Tensor, epsilon: float | None
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients at x and at the entries by operators that autograd follows: a second derivative is wanted.

    Args:
        epsilon: of the batch norm of x in training, None without a norm.
    """
    normed = x if epsilon is None else F.batch_norm(x, None, None, training=True, eps=epsilon)
    a, b = entries.to(x.dtype).index_select(0, index.flatten()).chunk(2, dim=1)
    wanted = [each for each in (x, entries) if each.requires_grad]
    found = iter(torch.autograd.grad(as_rows(normed) * a + b, wanted, as_rows(grad), create_graph=True))
    for_x, for_entries = (next(found) if each.requires_grad else None for each in (x, entries))
    return for_x, for_entries


def _sums_by_entry(
    x: Tensor, grad: Tensor, index: Tensor, order: ByEntry | None, entries: Tensor, mean: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums of (x - mean) * grad and of grad [N*h*w, C] over the pixels of each entry: [U5, C] each, at least float32.

    The sums are at least float32, since a long sum in bfloat16 stops growing.
    """
    wide = torch.promote_types(entries.dtype, torch.float32)
    products = torch.empty_like(grad)
    for part in slices(x):
        values = x[part].to(wide, copy=True)
        if mean is not None:
            values -= mean
        products[part] = values.mul_(grad[part].to(wide))
    if x.device.type != "cpu":  # sorts the pixels: atomic additions to one entry would wait for each other
        sums = [
            torch.ops.aten.embedding_dense_backward(terms.to(wide), index.flatten(), len(entries), -1, False)
            for terms in (products, grad)
        ]
    else:
        order = order or by_entry(index, len(entries))
        sums = [F.embedding_bag(order.pixels, terms, order.starts, mode="sum").to(wide) for terms in (products, grad)]
    return sums[0], sums[1]


def slices(rows: Tensor) -> Iterator[slice]:
    """Parts of rows [.., C]: on the CPU small enough for the cache, on a GPU one part with all rows."""
    count = rows.shape[0]
    step = max(1, SLICE // rows.shape[1]) if rows.device.type == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, start + step)


def as_rows(x: Tensor) -> Tensor:
    """[N, C, *spatial] -> [pixels, C]; a view of channels-last maps, a copy of others."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def channels_last(x: Tensor) -> torch.memory_format:
    """The layout of a map [N, C, h, w] or [N, C, d, h, w] with the channels last.

    Maps keep their axes: PyTorch 2.13 gives a map of one image other strides when axes are joined or split, and the
    gradient of its batch norm in eval mode is wrong for those.
    """
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d
