"""Conv: 3x3 with a padding of one, or 1x1, with a residual added. The specification of `kernels.steps.conv`."""

from __future__ import annotations

import numpy as np

from kernels.layouts import Array, Float64


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
