"""Tileable noise: a process makes each table once, and reads it at any coordinates."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]  # float32, or wider where NumPy widens

SIZE = 512  # texels a side; a power of two, so that wrapping is a mask


@cache
def table(roughness: float, seed: int) -> Floats:
    """Noise [SIZE, SIZE] of mean 0 and standard deviation 1, amplitude 1 / frequency^roughness: 0 white, 2 cloudy."""
    random = np.random.default_rng([seed, 0x5CE4E])
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    # Waves longer than an eighth of the table would give every scene one bright and one dark half.
    frequency = np.maximum(frequency, 8 / SIZE)
    spectrum = np.fft.rfft2(random.standard_normal((SIZE, SIZE))) / frequency**roughness
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
    standard: Floats = (noise / noise.std()).astype(np.float32)
    return standard


def sample(noise: Floats, x: Floats, y: Floats) -> Floats:
    """The texels nearest to coordinates x, y (in texels, any sign)."""
    columns = np.floor(x).astype(np.int32) & (SIZE - 1)
    rows = np.floor(y).astype(np.int32) & (SIZE - 1)
    found: Floats = noise.ravel()[rows * SIZE + columns]
    return found
