"""Image: tanh, and the grey levels of the published models. The specification of `kernels.ops.image.image`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, storage_dtype
from kernels.program import Step, expect, expect_rank, make_step


def image_numpy(x: Array) -> Float64:
    """x [N, 3, H, W] -> tanh, float64."""
    out: Float64 = np.tanh(x.astype(np.float64))
    return out


def pixels_numpy(values: Float32) -> npt.NDArray[np.uint8]:
    """values float32 [N, 3, H, W] in -1..1 -> uint8 [N, H, W, 3], truncated: 0.999 of a grey level is still 0."""
    levels = np.clip((values + np.float32(1)) * np.float32(127.5), 0, 255)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))


def image(isa: Isa, x: Array, values: Float32 | None, pixels: npt.NDArray[np.uint8] | None) -> Step:
    """tanh of the first 3 channels; see `kernels.ops.image.image_numpy`.

    Args:
        x: plain map T [N, H, 1, W, 32].
        values: float32 [N, 3, H, W] in -1..1, out, or None.
        pixels: uint8 [N, H, W, 3], out, or None.
    """
    expect_rank("image", "x", x, 5)
    n, height, _, width, _ = x.shape
    expect("image", "x", x, storage_dtype(isa_dtype(isa)), (n, height, 1, width, BLOCK))
    if values is not None:
        expect("image", "values", values, np.float32, (n, 3, height, width))
    if pixels is not None:
        expect("image", "pixels", pixels, np.uint8, (n, height, width, 3))
    return make_step("image", isa, {"x": x, "values": values, "pixels": pixels}, n=n, height=height, width=width)
