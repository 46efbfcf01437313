"""Embed: a conv on a one-hot map as a sum of gathered rows. The specification of `kernels.steps.embed`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.layouts import Array, Float64


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
