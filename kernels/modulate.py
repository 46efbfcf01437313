"""Modulate: SPADE's a * norm(x) + b through the plan's index. The specification of `kernels.steps.modulate`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.layouts import Array, Float64

SLOPE = 0.2


def modulate_numpy(
    x: Array,
    a: Array | None,
    b: Array | None,
    index: npt.NDArray[np.int32] | None,
    *,
    mean: Array | None = None,
    rstd: Array | None = None,
    shift: int = 0,
    leaky: bool = True,
) -> Float64:
    """What the kernel computes before it rounds to T.

    Args:
        x: [N, C, H >> shift, W >> shift].
        a, b: [U, C], or None with index: 1 and 0.
        index: int32 [N, H, W], rows of a and b.
        mean, rstd: [N, C], or None.

    Returns float64 [N, C, H, W].
    """
    out: Float64 = x.astype(np.float64).repeat(1 << shift, axis=2).repeat(1 << shift, axis=3)
    if mean is not None and rstd is not None:
        out = (out - mean[:, :, None, None]) * rstd[:, :, None, None]
    if a is not None and b is not None and index is not None:
        per_pixel_a, per_pixel_b = (v.astype(np.float64)[index].transpose(0, 3, 1, 2) for v in (a, b))  # [N, C, H, W]
        out = per_pixel_a * out + per_pixel_b
    return np.where(out < 0, SLOPE * out, out) if leaky else out
