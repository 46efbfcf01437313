"""SPADE's modulation through the plan's index, on CUDA; `modulate_codebook_torch` is its specification."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cuda.library import LAYOUTS, CudaError, Library
from kernels.cuda.tensors import (
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
from kernels.modulate import SLOPE


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
        index: int32 [N, H, W], rows of entries; not checked, since that would wait for the device.
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
    if shift not in (0, 1) or (shift and (height % 2 or width % 2)):
        raise CudaError(
            f"[modulate_codebook] expected shift 0, or 1 with even sizes, but got {shift} for {height}x{width}"
        )
    x = in_layout(x, layout)
    expect_shape("modulate_codebook", "x", x, (n, channels, height >> shift, width >> shift), x.dtype)
    expect_shape("modulate_codebook", "entries", entries, (len(entries), 2 * channels), x.dtype)
    expect_shape("modulate_codebook", "index", index, (n, height, width), torch.int32)
    if not entries.is_contiguous() or not index.is_contiguous():
        raise CudaError("[modulate_codebook] expected contiguous entries and index but got strided ones")
    if out is None:
        out = empty_map((n, channels, height, width), x, layout)
    expect_shape("modulate_codebook", "out", out, (n, channels, height, width), x.dtype)
    library.call(
        "modulate_codebook", stream_of(x), x=address(x), entries=address(entries), index=address(index),
        mean=address(mean), rstd=address(rstd), out=address(out),
        statistics_stride=statistics_stride(mean, n, channels),
        n=n, height=height, width=width, channels=channels, shift=shift, leaky=leaky, dtype=dtype_number(x),
        layout=LAYOUTS[layout],
    )  # fmt: skip
    return out


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
