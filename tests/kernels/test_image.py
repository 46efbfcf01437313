"""The image step: tanh against float64, grey levels bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from native import each_isa, plain, poison, run_steps, stored
from tolerances import SMALLEST, UNIT, assert_within

from kernels.isa import Isa
from kernels.layouts import Array, aligned_empty, from_storage
from kernels.ops.image import image, image_numpy, pixels_numpy

# The polynomial and the exponential are accurate to a few units in the last place.
TANH_ULPS = 4


def run_image(isa: Isa, x: Array, threads: int = 1) -> tuple[Array, Array]:
    n, _, height, width = x.shape
    values = poison(aligned_empty((n, 3, height, width), np.float32))
    pixels = np.full((n, height, width, 3), 7, np.uint8)
    run_steps(image(isa, plain(x, isa), values, pixels), threads=threads)
    return values, pixels


@each_isa
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 7), (1, 2, 257), (1, 64, 600)])
def test_against_twin(isa: Isa, size: tuple[int, int, int]) -> None:
    n, height, width = size
    random = np.random.default_rng(width)
    spread = 10.0 ** random.uniform(-6, 1.2, (n, 3, height, width))
    x = from_storage(stored(random.choice([-1, 1], spread.shape) * spread, isa))
    values, pixels = run_image(isa, x)
    expected = image_numpy(x)
    assert_within(values, expected, TANH_ULPS * 2 * UNIT["float32"] * np.abs(expected) + SMALLEST)
    assert np.array_equal(pixels, pixels_numpy(values))


@each_isa
def test_extremes(isa: Isa) -> None:
    x = np.zeros((1, 3, 1, 8))
    x[0, 0, 0] = [0, -0.0, 6e4, -6e4, np.inf, -np.inf, 0.625, -0.625]
    x[0, 1, 0, 0] = np.nan
    values, pixels = run_image(isa, x)
    assert np.isnan(values[0, 1, 0, 0])
    assert values[0, 0, 0, :6].tolist() == [0, 0, 1, -1, 1, -1]
    assert pixels[0, 0, :6, 0].tolist() == [127, 127, 255, 0, 255, 0]


@each_isa
def test_either_output_alone(isa: Isa) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
    values, pixels = run_image(isa, x)
    only_values, only_pixels = np.empty_like(values), np.empty_like(pixels)
    x_map = plain(x, isa)
    run_steps(image(isa, x_map, only_values, None), image(isa, x_map, None, only_pixels), threads=3)
    assert np.array_equal(values, only_values)
    assert np.array_equal(pixels, only_pixels)
