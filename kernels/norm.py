"""Norm: instance-norm statistics. The specification of `kernels.steps.norm`."""

from __future__ import annotations

import numpy as np

from kernels.layouts import Array, Float64


def norm_numpy(x: Array, epsilon: float = 1e-5) -> tuple[Float64, Float64]:
    """x [N, C, H, W] -> mean and 1 / sqrt(variance + epsilon), float64 [N, C]; the variance divides by H * W."""
    values = x.astype(np.float64)
    mean: Float64 = values.mean(axis=(2, 3))
    rstd: Float64 = 1 / np.sqrt(values.var(axis=(2, 3)) + epsilon)
    return mean, rstd
