"""Grid energy: how strongly plain regions vary at the periods at which generators leave a grid.

A x2 upsampling or a conv of stride 2 leaves a pattern of period 2 at its own size, of period 4 one level down, and so
on. A plain region is a square of one label. Its grey values go through a Hann window and a Fourier transform.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SIDE = 32  # pixels of a plain square's side; squares lie at steps of a quarter
PERIODS = (2, 4, 8)
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class GridScore:
    """What plain regions do at one period.

    Attributes:
        energy: variance, in grey levels squared, of the waves of this period along x, along y and along both.
        peak: energy of the frequencies of the period over the energy of as many others of their distance from 0. Even
            textures have about 1, a grid has far more.
    """

    energy: float
    peak: float


@dataclass
class GridEnergy:
    """Adds up the spectra of plain squares, over as many batches as are added."""

    total: Floats = field(default_factory=lambda: np.zeros((SIDE, SIDE)))
    squares: int = 0

    def add(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
        """Add the plain squares of images [N, H, W, 3] with label maps [N, H, W]."""
        for image, ids in zip(images, labels, strict=True):
            squares = windows(image @ LUMA)[plain(ids)]
            self.total += spectra(squares).sum(0)
            self.squares += len(squares)

    def scores(self) -> dict[int, GridScore]:
        """The score of each period; empty where no plain square was added."""
        if not self.squares:
            return {}
        mean = self.total / self.squares
        return {period: _score(mean, period) for period in PERIODS}


def windows(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The squares of a plane [H, W] at steps of SIDE / 4: a view [h, w, SIDE, SIDE], empty where none fits."""
    if min(plane.shape) < SIDE:
        return np.empty((0, 0, SIDE, SIDE), plane.dtype)
    step = SIDE // 4
    return np.lib.stride_tricks.sliding_window_view(plane, (SIDE, SIDE))[::step, ::step]


def plain(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Which squares of a map [H, W] hold one label: [h, w]."""
    found = windows(labels)
    one: npt.NDArray[np.bool_] = (found == found[..., :1, :1]).all((-1, -2))
    return one


def spectra(squares: Floats) -> Floats:
    """Power of squares [K, SIDE, SIDE] by frequency, [K, SIDE, SIDE]; the sum is the variance under the window.

    |FFT(w (x - mean))|^2 / (SIDE^2 sum(w^2)), with w the Hann window of both axes (Welch, 1967).
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIDE) / SIDE)
    window = np.outer(hann, hann)
    means = (squares * window).sum((-1, -2), keepdims=True) / window.sum()
    power: Floats = np.abs(np.fft.fft2((squares - means) * window)) ** 2 / (SIDE**2 * (window**2).sum())
    return power


def _score(power: Floats, period: int) -> GridScore:
    of_period, others = masks(period)
    energy = float(power[of_period].sum())
    around = float(power[others].mean()) * int(of_period.sum())
    return GridScore(energy, energy / max(around, 1e-12))


def masks(period: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Frequencies of the period, each with the neighbours that the window spreads it to; others as far from 0."""
    at = SIDE // period
    near_zero, near_period = _near(0), _near(at) | _near(-at)
    along = np.outer(near_period, near_zero) | np.outer(near_zero, near_period)
    both = np.outer(near_period, near_period)
    axis = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    distance = np.hypot(axis[:, None], axis[None, :])
    ring = (distance >= at - 1) & (distance <= np.hypot(at, at) + 1)
    crosses = np.logical_or.outer(near_zero, near_zero)  # stripes of any period are no even texture
    return along | both, ring & ~(along | both) & ~crosses


def _near(at: int) -> npt.NDArray[np.bool_]:
    found = np.zeros(SIDE, bool)
    found[[(at + d) % SIDE for d in (-1, 0, 1)]] = True
    return found
