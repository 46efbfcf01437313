"""Conv: 3x3 with a padding of one, or 1x1, plus a bias and an optional residual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, input_dtype, isa_dtype, isa_number
from kernels.layouts import BLOCK, Array, Float32, Float64, aligned_empty, blocks, pad_channels, storage_dtype
from kernels.native import native
from kernels.program import Arguments, Step, StepError, expect, expect_rank, expect_shift

# ---- The specification in NumPy ----


def conv_numpy(
    x: Array, weight: Array, bias: Array, residual: Array | None = None, *, residual_shift: int = 0
) -> Float64:
    """Compute what `conv` computes before it rounds to T.

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


# ---- Packed weights ----


@dataclass(frozen=True, eq=False)
class PackedConv:
    """The weights of one conv as an ISA's kernel reads them, see `pack_conv`.

    Attributes:
        kernel_size: k, 1 or 3.
        weight: the packed weights, bytes.
        bias: float32 [CBo * 32], zero past out_channels.
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    weight: npt.NDArray[np.uint8]
    bias: Float32


def pack_conv(isa: Isa, weight: Float32, bias: Array | None = None) -> PackedConv:
    """Pack weight float32 [Co, Ci, k, k], k 1 or 3, and bias [Co], or None: zero. Raises StepError."""
    expect_rank("conv", "weight", weight, 4)
    out_channels, in_channels, kernel_size, _ = weight.shape
    if kernel_size not in (1, 3):
        raise StepError(f"[conv] expected a kernel size of 1 or 3 but got {kernel_size}")
    expect("conv", "weight", weight, np.float32, (out_channels, in_channels, kernel_size, kernel_size))
    number = isa_number(isa)
    packed = aligned_empty((native.conv_packed_bytes(number, out_channels, in_channels, kernel_size),), np.uint8)
    native.conv_pack(number, weight, out_channels, in_channels, kernel_size, packed)
    padded = pad_channels(np.zeros(out_channels) if bias is None else bias)
    return PackedConv(in_channels, out_channels, kernel_size, packed, padded)


# ---- The step ----


def conv(
    isa: Isa, x: Array, packed: PackedConv, y: Array, residual: Array | None = None, *, residual_shift: int = 0
) -> Step:
    """Return the step that `conv_numpy` specifies.

    Args:
        x: padded map I [N, H + 2, CBi, W + 2, 32].
        packed: packed for the same ISA.
        y: plain map T [N, H, CBo, W, 32], out.
        residual: plain map T [N, H >> residual_shift, CBo, W >> residual_shift, 32], or None.
        residual_shift: 1 upsamples the residual by 2.
    """
    expect_rank("conv", "y", y, 5)
    n, height, _, width, _ = y.shape
    x_shape = (n, height + 2, blocks(packed.in_channels), width + 2, BLOCK)
    expect("conv", "x", x, storage_dtype(input_dtype(isa)), x_shape)
    arguments = conv_arguments("conv", isa, packed, y, residual, residual_shift)
    return (Arguments({"x": x}, {}) | arguments).step("conv", isa)


def conv_arguments(
    op: str, isa: Isa, packed: PackedConv, y: Array, residual: Array | None = None, residual_shift: int = 0
) -> Arguments:
    """Check a conv; return all arguments except `x`."""
    n, height, _, width, _ = y.shape
    dtype, out_blocks = storage_dtype(isa_dtype(isa)), blocks(packed.out_channels)
    expect_shift(op, "residual_shift", residual_shift, height, width)
    sizes = (packed.out_channels, packed.in_channels, packed.kernel_size)
    expect(op, "weight", packed.weight, np.uint8, (native.conv_packed_bytes(isa_number(isa), *sizes),))
    expect(op, "bias", packed.bias, np.float32, (out_blocks * BLOCK,))
    expect(op, "y", y, dtype, (n, height, out_blocks, width, BLOCK))
    if residual is not None:
        shape = (n, height >> residual_shift, out_blocks, width >> residual_shift, BLOCK)
        expect(op, "residual", residual, dtype, shape)
    numbers = {
        "n": n, "height": height, "width": width, "in_channels": packed.in_channels,
        "out_channels": packed.out_channels, "kernel_size": packed.kernel_size, "residual_shift": residual_shift,
        "bottom": height, "right": width,
    }  # fmt: skip
    return Arguments({"weight": packed.weight, "bias": packed.bias, "residual": residual, "y": y}, numbers)
