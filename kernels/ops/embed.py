"""Embed: a conv on a one-hot map as a sum of gathered rows. The specification of `kernels.ops.embed.embed`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, Int32, storage_dtype
from kernels.program import Step, StepError, expect, expect_rank, make_step


def embed_numpy(table: Array, bias: Array, patches: npt.NDArray[np.int32], *, relu: bool, zero_row: bool) -> Float64:
    """What the kernel computes before it rounds to T.

    Args:
        table: [taps, symbols + 1, D]; the row `symbols`, outside the image, is zero.
        bias: [D].
        patches: int32 [U, taps], 0..symbols.

    Returns float64 [U, D], or [U + 1, D] with a last row of zeros.
    """
    taps = np.arange(patches.shape[1])
    rows = table.astype(np.float64)[taps, patches]  # [U, taps, D]
    out: Float64 = bias.astype(np.float64) + rows.sum(axis=1)
    if relu:
        out = np.maximum(out, 0)
    return np.pad(out, ((0, int(zero_row)), (0, 0)))


def as_bytes(hidden: Float64) -> npt.NDArray[np.uint8]:
    """How the kernel rounds hidden rows for int8 products: to the nearest whole number, even ones at half, 0..255."""
    return np.clip(np.rint(hidden), 0, 255).astype(np.uint8)


def embed(isa: Isa, table: Float32, bias: Float32, patches: Int32, out: Array, *, relu: bool, zero_row: bool) -> Step:
    """Conv on a one-hot map as a sum of gathered rows; see `kernels.ops.embed.embed_numpy` and, of bytes, `as_bytes`.

    Args:
        table: float32 [taps, symbols + 1, D], D a multiple of 32, the last row of each tap zero.
        bias: float32 [D].
        patches: int32 [U, taps], 0..symbols.
        out: with zero_row, hidden rows I [U + 1, D], or on amx uint8 for int8 products; else a plain map T
            [N, H, D / 32, W, 32] of N * H * W = U pixels, or T [U, D].
    """
    expect_rank("embed", "table", table, 3)
    taps, symbols, depth = table.shape[0], table.shape[1] - 1, table.shape[2]
    expect_rank("embed", "patches", patches, 2)
    rows, width = len(patches), 1
    if depth % BLOCK:
        raise StepError(f"[embed] expected a depth that is a multiple of {BLOCK} but got {depth}; pad it with zeros")
    shape: tuple[int, ...] = (rows + int(zero_row), depth)
    if out.ndim == 5 and not zero_row:
        n, height, _, width, _ = out.shape
        shape = (n, height, depth // BLOCK, width, BLOCK)
        if n * height * width != rows:
            raise StepError(f"[embed] expected a plain map of {rows} pixels but got {list(out.shape)}")
    expect("embed", "table", table, np.float32, (taps, symbols + 1, depth))
    expect("embed", "bias", bias, np.float32, (depth,))
    expect("embed", "patches", patches, np.int32, (rows, taps))
    as_bytes = zero_row and isa == "amx" and out.dtype == np.uint8
    stored = storage_dtype(input_dtype(isa) if zero_row else isa_dtype(isa))
    expect("embed", "out", out, np.uint8 if as_bytes else stored, shape)
    arrays = {"table": table, "bias": bias, "patches": patches, "out": out}
    numbers = {"rows": rows, "taps": taps, "symbols": symbols, "depth": depth, "width": width}
    return make_step("embed", isa, arrays, **numbers, relu=relu, zero_row=zero_row, as_bytes=as_bytes)
