"""The measures of looks, on patterns whose energy, distance and error are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from trainer.evaluation.fidelity import BorderError, Halves, frechet
from trainer.evaluation.grid import PERIODS, SIDE, GridEnergy, plain, spectra
from trainer.evaluation.judges import scenes_features
from trainer.evaluation.measures import Measures
from trainer.scenes.scene import scene

AMPLITUDE = 20
# Grey levels squared: three channels of whole numbers, weighed by luma weights that sum to 1, in float64.
TOLERANCE = 1e-9 * AMPLITUDE**2
ROWS, COLUMNS = np.indices((64, 64))


def sign(place: npt.NDArray[np.int_], period: int) -> npt.NDArray[np.int_]:
    """+1 for the first half of each period, -1 for the second."""
    return np.where(place % period < period // 2, 1, -1)


def scores_of(pattern: npt.NDArray[np.int_], labels: npt.NDArray[np.int_] | None = None) -> GridEnergy:
    image = (128 + AMPLITUDE * pattern).astype(np.uint8)
    found = GridEnergy()
    found.add(np.repeat(image[None, ..., None], 3, -1), np.zeros((1, 64, 64), int) if labels is None else labels[None])
    return found


@pytest.mark.parametrize("period", PERIODS)
def test_a_checkerboard_has_its_energy_at_its_period(period: int) -> None:
    """Squares of half a period; the wave of a third of the period takes its known share, 1 - share of the first."""
    found = scores_of(sign(ROWS, period) * sign(COLUMNS, period)).scores()
    # The first harmonic of a square wave of 2 and of 4 samples is the whole wave; of 8 samples, (2 + sqrt(2)) / 4.
    share = {2: 1.0, 4: 1.0, 8: ((2 + 2**0.5) / 4) ** 2}[period]
    assert abs(found[period].energy - share * AMPLITUDE**2) <= TOLERANCE
    assert found[period].peak > 1000
    for other in set(PERIODS) - {period}:
        assert found[other].energy <= 1e-3 * AMPLITUDE**2, "the window keeps other periods out"


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("period", PERIODS)
def test_stripes_count_along_either_axis(period: int, axis: int) -> None:
    found = scores_of(sign((ROWS, COLUMNS)[axis], period)).scores()[period].energy
    assert abs(found - {2: 1.0, 4: 1.0, 8: (2 + 2**0.5) / 4}[period] * AMPLITUDE**2) <= TOLERANCE


def test_noise_has_no_peak_and_a_flat_image_no_energy() -> None:
    random, found = np.random.default_rng(0), GridEnergy()
    noise = random.normal(128, 10, (40, 64, 64, 1)).clip(0, 255).astype(np.uint8).repeat(3, -1)
    found.add(noise, np.zeros((40, 64, 64), int))
    for score in found.scores().values():
        assert 0.9 < score.peak < 1.1
    assert all(score.energy <= TOLERANCE for score in scores_of(np.zeros_like(ROWS)).scores().values())


def test_the_spectrum_sums_to_the_variance_under_the_window() -> None:
    square = np.random.default_rng(1).normal(0, 3, (1, SIDE, SIDE))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIDE) / SIDE)
    window = np.outer(hann, hann)
    centred = (square[0] - np.average(square[0], weights=window)) * window
    wanted = (centred**2).sum() / (window**2).sum()
    assert abs(spectra(square).sum() - wanted) <= 1e-9 * wanted


def test_only_squares_of_one_label_count() -> None:
    labels = np.zeros((64, 64), int)
    labels[:, 40:] = 3
    assert plain(labels).tolist() == [[True, True, False, False, False]] * 5
    labels[::5, ::5] = 1  # no square is plain
    found = scores_of(sign(ROWS, 2), labels)
    assert (found.squares, found.scores()) == (0, {})
    assert not plain(np.zeros((16, 64), int)).any(), "smaller than a square"


def test_frechet_of_known_normals_and_of_halves() -> None:
    random = np.random.default_rng(2)
    a = random.normal(0, 1, (4000, 3))
    assert abs(frechet(a, a)) <= 1e-6
    assert abs(frechet(a, a + np.array([3, 0, 4])) - 25) <= 1e-6
    # The same samples, three times as wide about the same mean: tr(A + 9 A - 2 * 3 A) = 4 tr(A).
    wide = a.mean(0) + 3 * (a - a.mean(0))
    trace = np.trace(np.cov(a, rowvar=False))
    assert abs(frechet(a, wide) - 4 * trace) <= 1e-6 * trace
    halves = Halves()
    halves.add(a[:1500] + 5, a[:1500], 0)
    halves.add(a[1500:] + 5, a[1500:], 1500)
    found = halves.score()
    assert found is not None
    assert found.images == 2000
    assert abs(found.real - frechet(a[::2], a[1::2])) <= 1e-9
    assert abs(found.generated - frechet(a[::2] + 5, a[1::2])) <= 1e-6
    few = Halves()
    few.add(a[:2], a[:2], 0)
    assert few.score() is None


def test_errors_are_told_apart_by_place_and_weighed_by_class() -> None:
    real = np.full((1, 64, 64, 3), 100, np.uint8)
    drawn, labels = real.copy(), np.zeros((1, 64, 64), int)
    labels[:, 32:] = 1  # half of the border and of the middle
    drawn[:, 4:60, 4:60] += 6  # the middle: every pixel but those nearer than 4 to the border
    drawn[:, :4] += 30
    labels[:, 20:24, 20:24] = 2  # a class of the middle alone counts nowhere
    found = BorderError(4)
    found.add(drawn, real, labels)
    score = found.score()
    assert score is not None
    top = 4 * 64 / (64 * 64 - 56 * 56)  # share of the border's pixels in the first four rows
    assert score.width == 4
    assert abs(score.border - 30 * top) <= 1e-9
    assert abs(score.middle - 6) <= 1e-9


def test_a_class_that_errs_more_weighs_as_at_the_border() -> None:
    real = np.zeros((1, 32, 32, 3), np.uint8)
    drawn, labels = real.copy(), np.zeros((1, 32, 32), int)
    labels[:, :, :8] = 1  # a quarter of all pixels, and more of the border
    drawn[labels == 1] = 10
    found = BorderError(2)
    found.add(drawn, real, labels)
    score = found.score()
    assert score is not None
    assert abs(score.border - score.middle) <= 1e-9, "each class errs alike everywhere"


def test_real_scenes_are_nearer_to_each_other_than_flat_images() -> None:
    import torch

    scenes = [scene(seed, height=64, width=64) for seed in range(12)]
    originals = torch.from_numpy(np.stack([one.image for one in scenes]).transpose(0, 3, 1, 2).copy())
    labels = np.stack([one.labels for one in scenes])
    measures = Measures(16, scenes_features())
    measures.add(originals.flip(1), originals, labels, originals)
    looks = measures.looks()
    assert looks.halves is not None
    assert looks.halves.generated > 1.2 * looks.halves.real, "red and blue changed places"
    assert looks.border is not None
    assert (looks.border.border, looks.border.middle) == (0, 0)
    assert looks.grid.squares > 0
    assert looks.grid.generated.keys() == looks.grid.real.keys() == set(PERIODS)
