"""Image: tanh of a map's first three channels, and the grey levels of an 8-bit image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, storage_dtype
from kernels.program import Arguments, Step, expect, expect_rank

# ---- The specification in NumPy ----


def image_numpy(x: Array) -> Float64:
    """x [N, 3, H, W] -> tanh(x), float64."""
    out: Float64 = np.tanh(x.astype(np.float64))
    return out


def pixels_numpy(values: Float32) -> npt.NDArray[np.uint8]:
    """values float32 [N, 3, H, W] in -1..1 -> grey levels uint8 [N, H, W, 3], truncated: level 0.999 becomes 0."""
    levels = np.clip((values + np.float32(1)) * np.float32(127.5), 0, 255)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))


# ---- The step ----


def image(isa: Isa, x: Array, values: Float32 | None, pixels: npt.NDArray[np.uint8] | None) -> Step:
    """Return the step that `image_numpy` and `pixels_numpy` specify.

    Args:
        x: plain map T [N, H, 1, W, 32]; the step reads its first 3 channels.
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
    numbers = {"n": n, "height": height, "width": width, "bottom": height, "right": width}
    return Arguments({"x": x, "values": values, "pixels": pixels}, numbers).step("image", isa)
