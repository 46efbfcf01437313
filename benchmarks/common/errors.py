"""The error of images against reference images."""

from __future__ import annotations

import numpy as np

from spade_core.types import Array


def image_error(images: Array, reference: Array) -> tuple[float, float]:
    """Max error and PSNR, in dB to one decimal, of images in -1..1; infinite PSNR for equal images."""
    error = np.abs(images.astype(np.float64) - reference)
    mse = float(np.mean(error**2))
    return float(error.max()), round(float(10 * np.log10(4 / mse)), 1) if mse else float("inf")
