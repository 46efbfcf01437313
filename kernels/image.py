"""Image: tanh, and the grey levels of the published models. The specification of `kernels.steps.image`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.layouts import Array, Float32, Float64


def image_numpy(x: Array) -> Float64:
    """x [N, 3, H, W] -> tanh, float64."""
    out: Float64 = np.tanh(x.astype(np.float64))
    return out


def pixels_numpy(values: Float32) -> npt.NDArray[np.uint8]:
    """values float32 [N, 3, H, W] in -1..1 -> uint8 [N, H, W, 3], truncated: 0.999 of a grey level is still 0."""
    levels = np.clip((values + np.float32(1)) * np.float32(127.5), 0, 255)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))
