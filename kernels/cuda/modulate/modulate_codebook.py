"""SPADE's modulation through the plan's index, on CUDA; the functions in `_torch` are the specification."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.constants import SLOPE
from kernels.cuda.host.library import LAYOUTS, CudaError, Library
from kernels.cuda.host.tensors import (
    address,
    dtype_number,
    empty_map,
    expect_shape,
    in_layout,
    layout_of,
    library_of,
    place_of,
    statistics_stride,
)
from kernels.cuda.norm.norm import Statistics, norm_backward, norm_backward_torch, normalise_torch

_INT32_MIN = -(2**31)


@dataclass(frozen=True)
class Modulation:
    """What a modulation does beside a * x + b.

    Attributes:
        statistics: normalise x first; None: x is not normalised.
        shift: 1 reads x upsampled by 2, at (row >> 1, column >> 1); 0 does not.
        leaky: apply leaky ReLU of slope 0.2.
    """

    statistics: Statistics | None = None
    shift: int = 0
    leaky: bool = True


_LEAKY = Modulation()


def modulate_codebook(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    how: Modulation = _LEAKY,
    *,
    out: Tensor | None = None,
    library: Library | None = None,
) -> Tensor:
    """out = act(a[index] * ((x - mean) * rstd) + b[index]), x read at (row >> shift, column >> shift).

    Args:
        x: [N, C, H >> shift, W >> shift], float32, float16 or bfloat16; channels last is the fast layout.
        entries: dtype of x, [U, 2C], a before b, contiguous.
        index: int32 [N, H, W], rows of entries. An index that is no row of entries stands for the last row: the values
            are not checked, because a check would wait for the device.
        out: [N, C, H, W] in the layout of x, or None to allocate it.

    Returns [N, C, H, W] in the dtype and layout of x. Raises CudaError.
    """
    library = library_of(x, library)
    n, channels = x.shape[:2]
    height, width = index.shape[1:]
    layout = layout_of(x)
    x = in_layout(x, layout)
    _expect_arguments("modulate_codebook", x, entries, index, how.shift)
    if out is None:
        out = empty_map((n, channels, height, width), x, layout)
    expect_shape("modulate_codebook", "out", out, (n, channels, height, width), x.dtype)
    mean, rstd = _pair(how)
    place = place_of("modulate_codebook", x, entries, index, mean, rstd, out)
    library.call(
        "modulate_codebook", place, x=address(x), entries=address(entries), index=address(index),
        mean=address(mean), rstd=address(rstd), out=address(out),
        rows=len(entries), statistics_stride=statistics_stride(mean, n, channels),
        n=n, height=height, width=width, channels=channels, shift=how.shift, leaky=how.leaky, dtype=dtype_number(x),
        layout=LAYOUTS[layout],
    )  # fmt: skip
    return out


def modulate_codebook_backward(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    dy: Tensor,
    how: Modulation = _LEAKY,
    *,
    order: Order | None = None,
    library: Library | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradients at x and, float32, at the entries; they pass through statistics that were computed from x.

    Args:
        x, entries, index, how: as in `modulate_codebook`; x that is not channels last is copied.
        dy: gradient of the output.
        order: of the index. With it, sums have the same bits every time; None adds atomically, in any order.

    Raises CudaError.
    """
    library = library_of(x, library)
    x, dy = in_layout(x, "nhwc"), in_layout(dy, "nhwc")
    n, channels = x.shape[:2]
    height, width = index.shape[1:]
    _expect_arguments("modulate_codebook_backward", x, entries, index, how.shift)
    expect_shape("modulate_codebook_backward", "dy", dy, (n, channels, height, width), x.dtype)
    dx = empty_map((n, channels, *x.shape[2:]), x, "nhwc")
    dentries = torch.empty((len(entries), 2 * channels), dtype=torch.float32, device=x.device)
    size = library.codebook_backward_scratch_bytes(n, height, width, channels) if order is not None else 1
    scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
    mean, rstd = _pair(how)
    through = how.statistics is not None and how.statistics.norm != "given"
    sums = (None, None) if order is None else (order.rows, order.pixels)
    place = place_of("modulate_codebook_backward", x, entries, index, dy, mean, rstd, *sums)
    library.call(
        "modulate_codebook_backward", place, x=address(x), entries=address(entries), index=address(index),
        mean=address(mean), rstd=address(rstd), dy=address(dy), sorted=address(sums[0]),
        order=address(sums[1]), dx=address(dx), dentries=address(dentries),
        scratch=address(scratch), scratch_bytes=size, rows=len(entries),
        statistics_stride=statistics_stride(mean, n, channels), n=n, height=height, width=width, channels=channels,
        shift=how.shift, leaky=how.leaky, unscaled=through, dtype=dtype_number(x),
    )  # fmt: skip
    if through and how.statistics is not None:
        dx = norm_backward(x, dx, how.statistics, library=library)
    return dx, dentries


@dataclass(frozen=True)
class Order:
    """The pixels of a level in the order of their patches.

    Attributes:
        rows: int32 [N * H * W], the sorted index. Values sort as unsigned numbers, so that indices that are no row of
            entries come last, beside the last row, for which they stand.
        pixels: int64 [N * H * W], the pixel of each element of `rows`; ascending where rows are equal.
    """

    rows: Tensor
    pixels: Tensor


def sort_index(index: Tensor) -> Order:
    """The order of an index int32 [N, H, W]; one order serves all norms of a level."""
    # With the highest bit flipped, signed numbers sort as unsigned ones do.
    rows, pixels = torch.sort(index.flatten() ^ _INT32_MIN, stable=True)
    return Order(rows ^ _INT32_MIN, pixels)


def _expect_arguments(op: str, x: Tensor, entries: Tensor, index: Tensor, shift: int) -> None:
    n, channels = x.shape[:2]
    height, width = index.shape[1:]
    if shift not in (0, 1) or (shift and (height % 2 or width % 2)):
        raise CudaError(f"[{op}] expected shift 0, or 1 with even sizes, but got {shift} for {height}x{width}")
    expect_shape(op, "x", x, (n, channels, height >> shift, width >> shift), x.dtype)
    expect_shape(op, "entries", entries, (len(entries), 2 * channels), x.dtype)
    expect_shape(op, "index", index, (n, height, width), torch.int32)
    if not entries.is_contiguous() or not index.is_contiguous():
        raise CudaError(f"[{op}] expected contiguous entries and index but got strided ones")


def _pair(how: Modulation) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if how.statistics is None else (how.statistics.mean, how.statistics.rstd)


# -- -- The specification -- --


def modulate_codebook_torch(x: Tensor, entries: Tensor, index: Tensor, how: Modulation = _LEAKY) -> Tensor:
    """What `modulate_codebook` computes, in the dtype of its arguments; differentiable."""
    a, b = _at_pixels(entries, index)
    value = a * _upsampled(normalise_torch(x, how.statistics), how) + b
    return F.leaky_relu(value, SLOPE) if how.leaky else value


def modulate_codebook_backward_torch(
    x: Tensor, entries: Tensor, index: Tensor, dy: Tensor, how: Modulation = _LEAKY
) -> tuple[Tensor, Tensor]:
    """What `modulate_codebook_backward` computes: the equations in modulate_codebook_backward.hpp."""
    xn = normalise_torch(x, how.statistics)
    wide = _upsampled(xn, how)
    a, b = _at_pixels(entries, index)
    d = torch.where(a * wide + b > 0, dy, dy * (SLOPE if how.leaky else 1.0))
    per_pixel = torch.cat([d * wide, d], dim=1).permute(0, 2, 3, 1).flatten(0, 2)  # [N H W, 2C]
    dentries = torch.zeros_like(entries).index_add(0, index.flatten(), per_pixel)
    g = a * d
    if how.shift:
        n, channels, height, width = g.shape
        g = g.view(n, channels, height // 2, 2, width // 2, 2).sum((3, 5))
    return norm_backward_torch(xn, g, how.statistics), dentries


def _upsampled(x: Tensor, how: Modulation) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest") if how.shift else x


def _at_pixels(entries: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """a and b of every pixel, [N, C, H, W] each."""
    return entries[index].permute(0, 3, 1, 2).chunk(2, dim=1)
