"""SPADE's modulation through the plan's index, on CUDA; `modulate_codebook_torch` is its specification."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.constants import SLOPE
from kernels.cuda.host.library import LAYOUTS, CudaError, Library, Norm
from kernels.cuda.host.tensors import (
    address,
    dtype_number,
    empty_map,
    expect_shape,
    in_layout,
    layout_of,
    library_of,
    statistics_stride,
    stream_of,
)
from kernels.cuda.modulate.modulate_dense import norm_backward, norm_backward_torch


def modulate_codebook(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    *,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    shift: int = 0,
    leaky: bool = True,
    out: Tensor | None = None,
    library: Library | None = None,
) -> Tensor:
    """out = act(a[index] * ((x - mean) * rstd) + b[index]), x read at (row >> shift, column >> shift).

    Args:
        x: [N, C, H >> shift, W >> shift], float32, float16 or bfloat16; channels last is the fast layout.
        entries: as x, [U, 2C], a before b, contiguous.
        index: int32 [N, H, W], rows of entries; not checked, since that would wait for the device, but safe: one that
            is no row of entries is taken for the last.
        mean, rstd: float32 [N, C] or [1, C], or None.
        shift: 1 reads x upsampled by 2.
        leaky: leaky ReLU of slope 0.2.
        out: [N, C, H, W] in the layout of x, or None to allocate it.

    Returns [N, C, H, W] in the dtype and layout of x. Raises CudaError.
    """
    library = library_of(x, library)
    n, channels = x.shape[:2]
    height, width = index.shape[1:]
    layout = layout_of(x)
    x = in_layout(x, layout)
    _expect_arguments("modulate_codebook", x, entries, index, shift)
    if out is None:
        out = empty_map((n, channels, height, width), x, layout)
    expect_shape("modulate_codebook", "out", out, (n, channels, height, width), x.dtype)
    library.call(
        "modulate_codebook", stream_of(x), x=address(x), entries=address(entries), index=address(index),
        mean=address(mean), rstd=address(rstd), out=address(out),
        rows=len(entries), statistics_stride=statistics_stride(mean, n, channels),
        n=n, height=height, width=width, channels=channels, shift=shift, leaky=leaky, dtype=dtype_number(x),
        layout=LAYOUTS[layout],
    )  # fmt: skip
    return out


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


def modulate_codebook_torch(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    *,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    shift: int = 0,
    leaky: bool = True,
) -> Tensor:
    """What `modulate_codebook` computes, in the dtype of its arguments; differentiable."""
    if shift:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    if mean is not None and rstd is not None:
        x = (x - mean[:, :, None, None]) * rstd[:, :, None, None]
    a, b = entries[index].permute(0, 3, 1, 2).chunk(2, dim=1)  # [N, C, H, W]
    value = a * x + b
    return F.leaky_relu(value, SLOPE) if leaky else value


def modulate_codebook_backward(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    dy: Tensor,
    *,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    shift: int = 0,
    leaky: bool = True,
    norm: Norm = "given",
    order: Order | None = None,
    library: Library | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradients at x and, float32, at the entries.

    Args:
        x, entries, index, mean, rstd, shift, leaky: as in `modulate_codebook`; x of channels last, else copied.
        dy: gradient of its output.
        norm: "given" if mean and rstd do not depend on x, else how they came from it.
        order: from `sort_index`: sums with the same bits every time; None adds atomically, in any order.

    Raises CudaError.
    """
    library = library_of(x, library)
    x, dy = in_layout(x, "nhwc"), in_layout(dy, "nhwc")
    n, channels = x.shape[:2]
    height, width = index.shape[1:]
    _expect_arguments("modulate_codebook_backward", x, entries, index, shift)
    expect_shape("modulate_codebook_backward", "dy", dy, (n, channels, height, width), x.dtype)
    dx = empty_map((n, channels, *x.shape[2:]), x, "nhwc")
    dentries = torch.empty((len(entries), 2 * channels), dtype=torch.float32, device=x.device)
    size = library.codebook_backward_scratch_bytes(n, height, width, channels) if order is not None else 1
    scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
    library.call(
        "modulate_codebook_backward", stream_of(x), x=address(x), entries=address(entries), index=address(index),
        mean=address(mean), rstd=address(rstd), dy=address(dy), sorted=None if order is None else address(order.rows),
        order=None if order is None else address(order.pixels), dx=address(dx), dentries=address(dentries),
        scratch=address(scratch), scratch_bytes=size, rows=len(entries),
        statistics_stride=statistics_stride(mean, n, channels), n=n, height=height, width=width, channels=channels,
        shift=shift, leaky=leaky, unscaled=norm != "given", dtype=dtype_number(x),
    )  # fmt: skip
    if norm != "given" and mean is not None and rstd is not None:
        dx = norm_backward(x, dx, mean, rstd, norm=norm, library=library)
    return dx, dentries


@dataclass(frozen=True)
class Order:
    """The pixels of a level by their patch: `rows` int32, the index sorted, and `pixels` int64, where each lies."""

    rows: Tensor
    pixels: Tensor


def sort_index(index: Tensor) -> Order:
    """The order of an index [N, H, W]; one serves all norms of a level."""
    rows, pixels = torch.sort(index.flatten(), stable=True)
    return Order(rows, pixels)


def modulate_codebook_backward_torch(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    dy: Tensor,
    *,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    shift: int = 0,
    leaky: bool = True,
    norm: Norm = "given",
) -> tuple[Tensor, Tensor]:
    """What `modulate_codebook_backward` computes: the equations in kernels/cuda/modulate_codebook_backward.hpp."""
    xn = x if mean is None or rstd is None else (x - mean[:, :, None, None]) * rstd[:, :, None, None]
    wide = F.interpolate(xn, scale_factor=2, mode="nearest") if shift else xn
    a, b = entries[index].permute(0, 3, 1, 2).chunk(2, dim=1)  # [N, C, H, W]
    d = torch.where(a * wide + b > 0, dy, dy * (SLOPE if leaky else 1.0))
    per_pixel = torch.cat([d * wide, d], dim=1).permute(0, 2, 3, 1).flatten(0, 2)  # [N H W, 2C]
    dentries = torch.zeros_like(entries).index_add(0, index.flatten(), per_pixel)
    g = a * d
    if shift:
        n, channels, height, width = g.shape
        g = g.view(n, channels, height // 2, 2, width // 2, 2).sum((3, 5))
    return norm_backward_torch(xn, g, rstd, norm), dentries
