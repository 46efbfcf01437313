"""Conv: 3x3 with a padding of one, or 1x1, with a residual added. The specification of `kernels.ops.conv.conv`."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, aligned_empty, blocks, storage_dtype
from kernels.native import native
from kernels.program import Step, StepError, expect, expect_rank, make_step


def conv_numpy(
    x: Array, weight: Array, bias: Array, residual: Array | None = None, *, residual_shift: int = 0
) -> Float64:
    """What the kernel computes before it rounds to T.

    Args:
        x: [N, Ci, H, W].
        weight: [Co, Ci, k, k], k 1 or 3.
        bias: [Co].
        residual: [N, Co, H >> residual_shift, W >> residual_shift], or None; shift 1 repeats every pixel 2x2.

    Returns float64 [N, Co, H, W].
    """
    k = weight.shape[2]
    border = k // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (border, border), (border, border)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))  # [N, Ci, H, W, k, k]
    out: Float64 = np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.float64), optimize=True)
    out = out + bias.astype(np.float64)[:, None, None]
    if residual is not None:
        out = out + residual.astype(np.float64).repeat(1 << residual_shift, axis=2).repeat(1 << residual_shift, axis=3)
    return out


def pack_conv(isa: Isa, weight: Float32) -> npt.NDArray[np.uint8]:
    """Conv weights float32 [Co, Ci, k, k], k 1 or 3, as the isa's kernel reads them."""
    expect_rank("conv", "weight", weight, 4)
    out_channels, in_channels, kernel_size, _ = weight.shape
    if kernel_size not in (1, 3):
        raise StepError(f"[conv] expected a kernel size of 1 or 3 but got {kernel_size}")
    expect("conv", "weight", weight, np.float32, (out_channels, in_channels, kernel_size, kernel_size))
    number = get_args(Isa).index(isa)
    packed = aligned_empty((native.conv_packed_bytes(number, out_channels, in_channels, kernel_size),), np.uint8)
    native.conv_pack(number, weight, out_channels, in_channels, kernel_size, packed)
    return packed


def conv(
    isa: Isa,
    x: Array,
    weight: npt.NDArray[np.uint8],
    bias: Float32,
    residual: Array | None,
    y: Array,
    *,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    residual_shift: int = 0,
) -> Step:
    """y = conv(x) + bias (+ residual, upsampled by 2 if residual_shift is 1); see `kernels.ops.conv.conv_numpy`.

    Args:
        x: padded map I [N, H + 2, CBi, W + 2, 32].
        weight: from `pack_conv` for the same isa.
        bias: float32 [CBo * 32], zero behind out_channels.
        residual: plain map T [N, H >> residual_shift, CBo, W >> residual_shift, 32], or None.
        y: plain map T [N, H, CBo, W, 32], out.
    """
    expect_rank("conv", "y", y, 5)
    n, height, _, width, _ = y.shape
    x_shape = (n, height + 2, blocks(in_channels), width + 2, BLOCK)
    expect("conv", "x", x, storage_dtype(input_dtype(isa)), x_shape)
    arrays, numbers = convolution(
        "conv", isa, weight, bias, residual, y, in_channels, out_channels, kernel_size, residual_shift
    )
    return make_step("conv", isa, {"x": x, **arrays}, **numbers)


def convolution(
    op: str, isa: Isa, weight: npt.NDArray[np.uint8], bias: Float32, residual: Array | None, y: Array,
    in_channels: int, out_channels: int, kernel_size: int, residual_shift: int,
) -> tuple[dict[str, Array | None], dict[str, int]]:  # fmt: skip
    """The checked arguments of a conv, but for x."""
    n, height, _, width, _ = y.shape
    dtype, out_blocks = storage_dtype(isa_dtype(isa)), blocks(out_channels)
    if residual_shift not in (0, 1) or (residual_shift and (height % 2 or width % 2)):
        raise StepError(
            f"[{op}] expected residual_shift 0, or 1 with even sizes, but got {residual_shift} for {height}x{width}"
        )
    bytes_ = native.conv_packed_bytes(get_args(Isa).index(isa), out_channels, in_channels, kernel_size)
    expect(op, "weight", weight, np.uint8, (bytes_,))
    expect(op, "bias", bias, np.float32, (out_blocks * BLOCK,))
    expect(op, "y", y, dtype, (n, height, out_blocks, width, BLOCK))
    if residual is not None:
        shape = (n, height >> residual_shift, out_blocks, width >> residual_shift, BLOCK)
        expect(op, "residual", residual, dtype, shape)
    numbers = {
        "n": n, "height": height, "width": width, "in_channels": in_channels, "out_channels": out_channels,
        "kernel_size": kernel_size, "residual_shift": residual_shift,
    }  # fmt: skip
    return {"weight": weight, "bias": bias, "residual": residual, "y": y}, numbers
