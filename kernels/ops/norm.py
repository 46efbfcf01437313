"""Norm: mean and 1 / standard deviation of every channel of every image, for instance normalisation."""

from __future__ import annotations

import numpy as np

from kernels.constants import EPSILON
from kernels.isa import Isa, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, storage_dtype
from kernels.program import Arguments, Step, expect, expect_rank

# ---- The specification in NumPy ----


def norm_numpy(x: Array, epsilon: float = EPSILON) -> tuple[Float64, Float64]:
    """x [N, C, H, W] -> mean and 1 / sqrt(variance + epsilon), float64 [N, C]; the variance divides by H * W."""
    values = x.astype(np.float64)
    mean: Float64 = values.mean(axis=(2, 3))
    rstd: Float64 = 1 / np.sqrt(values.var(axis=(2, 3)) + epsilon)
    return mean, rstd


# ---- The step ----


def norm(isa: Isa, x: Array, mean: Float32, rstd: Float32, *, epsilon: float = EPSILON) -> Step:
    """Return the step that `norm_numpy` specifies.

    Args:
        x: plain map T [N, H, CB, W, 32].
        mean, rstd: float32 [N, CB * 32], out.
    """
    expect_rank("norm", "x", x, 5)
    n, height, n_blocks, width, _ = x.shape
    expect("norm", "x", x, storage_dtype(isa_dtype(isa)), (n, height, n_blocks, width, BLOCK))
    expect("norm", "mean", mean, np.float32, (n, n_blocks * BLOCK))
    expect("norm", "rstd", rstd, np.float32, (n, n_blocks * BLOCK))
    numbers = {"n": n, "height": height, "width": width, "blocks": n_blocks, "epsilon": epsilon}
    return Arguments({"x": x, "mean": mean, "rstd": rstd}, numbers).step("norm", isa)
