"""Tileable height fields with their slopes: rough ground, ridges and clumps, read at any coordinates."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from trainer.scenes.noise import SIZE, Floats, table

_OCTAVES = 6


@cache
def rough(roughness: float, seed: int) -> Floats:
    """Fractal noise with its slopes: float32 [SIZE, SIZE, 3], (height, slope along x, slope along y) in texels."""
    return _with_slopes(table(roughness, seed))


@cache
def ridges(seed: int) -> Floats:
    """Sharp crests and round valleys at every scale: octaves of 1 - |noise| (Musgrave's ridged multifractal)."""
    height: Floats = np.zeros((SIZE, SIZE), np.float32)
    weight: Floats | float = 1.0
    for octave in range(_OCTAVES):
        crest = (1 - np.abs(_octave(octave, seed)) / 2).clip(0, 1) ** 2
        height = height + 0.5**octave * crest * weight
        weight = crest.clip(0.15, 1)  # fine ridges lie on coarse ones
    return _with_slopes((height - height.mean()) / height.std())


@cache
def clumps(seed: int) -> Floats:
    """Round bumps with dark gaps between them, as leaves and pebbles have: octaves of |noise|."""
    height: Floats = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(2, _OCTAVES + 1):
        height = height + 0.62**octave * np.sqrt(np.abs(_octave(octave, seed)) + 0.02)
    return _with_slopes((height - height.mean()) / height.std())


def sampled(field: Floats, x: Floats, y: Floats) -> Floats:
    """Rows of a field [SIZE, SIZE, 3] between its texels, at coordinates [n] in texels: [n, 3]."""
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
    c0, r0 = x0.astype(np.int32) & (SIZE - 1), y0.astype(np.int32) & (SIZE - 1)
    c1, r1 = (c0 + 1) & (SIZE - 1), ((r0 + 1) & (SIZE - 1)) * SIZE
    r0 *= SIZE
    flat = field.reshape(-1, 3)
    top, low = flat[r0 + c0], flat[r1 + c0]
    top += (flat[r0 + c1] - top) * fx
    low += (flat[r1 + c1] - low) * fx
    low -= top
    low *= fy
    low += top
    found: Floats = low
    return found


def offset(random: np.random.Generator) -> tuple[float, float]:
    """A random place in a field, in texels. Python's numbers keep arrays in float32."""
    x, y = random.uniform(0, SIZE, 2)
    return float(x), float(y)


def blurred(plane: npt.NDArray[Any], pixels: float) -> Floats:
    """A plane [H, W] of 0..1 after a Gaussian blur, in 8 bits."""
    image = Image.fromarray((np.clip(plane, 0, 1) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(pixels))
    soft: Floats = np.asarray(image, np.float32) / 255
    return soft


def _octave(octave: int, seed: int) -> Floats:
    """Noise whose waves are about SIZE / (4 * 2^octave) texels long, of mean 0 and standard deviation 1."""
    random = np.random.default_rng([seed, octave, 0x11D6E])
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :]) * SIZE / (4 * 2.0**octave)
    band = np.exp(-(np.log2(np.maximum(frequency, 1e-6)) ** 2) / 0.5)
    noise = np.fft.irfft2(np.fft.rfft2(random.standard_normal((SIZE, SIZE))) * band, (SIZE, SIZE))
    standard: Floats = (noise / noise.std()).astype(np.float32)
    return standard


def _with_slopes(height: Floats) -> Floats:
    along_x = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) / 2
    along_y = (np.roll(height, -1, 0) - np.roll(height, 1, 0)) / 2
    return np.ascontiguousarray(np.stack([height, along_x, along_y], -1), np.float32)
