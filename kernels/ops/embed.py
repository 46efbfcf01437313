"""Embed: a conv on a one-hot map, as a sum of one table row per tap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, Int32, storage_dtype
from kernels.program import Arguments, Step, StepError, expect, expect_rank

# ---- The specification in NumPy ----


def embed_numpy(table: Array, bias: Array, patches: Int32, *, relu: bool, zero_row: bool) -> Float64:
    """Compute what `embed` computes before it rounds to T.

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
    """Round hidden rows to bytes as `embed` does for int8 products: to the nearest integer, half to even, 0..255."""
    return np.clip(np.rint(hidden), 0, 255).astype(np.uint8)


# ---- The step ----


def embed(isa: Isa, table: Float32, bias: Float32, patches: Int32, out: Array, *, relu: bool, zero_row: bool) -> Step:
    """Return the step that `embed_numpy` specifies.

    Args:
        table: float32 [taps, symbols + 1, D], D a multiple of 32, the last row of each tap zero.
        bias: float32 [D].
        patches: int32 [U, taps], 0..symbols.
        out: with zero_row, hidden rows I [U + 1, D] or, on amx, uint8 [U + 1, D] rounded by `as_bytes`; without
            zero_row, a plain map T [N, H, D / 32, W, 32] of N * H * W = U pixels, or T [U, D].
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
    to_bytes = zero_row and isa == "amx" and out.dtype == np.uint8
    stored = storage_dtype(input_dtype(isa) if zero_row else isa_dtype(isa))
    expect("embed", "out", out, np.uint8 if to_bytes else stored, shape)
    numbers = {
        "rows": rows, "taps": taps, "symbols": symbols, "depth": depth, "width": width, "relu": relu,
        "zero_row": zero_row, "as_bytes": to_bytes,
    }  # fmt: skip
    return Arguments({"table": table, "bias": bias, "patches": patches, "out": out}, numbers).step("embed", isa)
