"""Instance-norm statistics: every tier against the float64 twin, also where a one-pass variance would cancel."""

from __future__ import annotations

import numpy as np
import pytest
from native import each_tier, plain, poison, random_values, run_steps, stored
from tolerances import UNIT, assert_within, gamma

from kernels.layouts import Array, aligned_empty, from_storage
from kernels.norm import norm_numpy
from kernels.steps import Tier, norm


def statistics(tier: Tier, x: Array, threads: int = 1) -> tuple[Array, Array]:
    shape = (x.shape[0], -(-x.shape[1] // 32) * 32)
    mean, rstd = (poison(aligned_empty(shape, np.float32)) for _ in range(2))
    run_steps(norm(tier, plain(x, tier), mean, rstd), threads=threads)
    return mean, rstd


@each_tier
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (12, 33), (64, 8)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_against_twin(tier: Tier, size: tuple[int, int], offset: float) -> None:
    random = np.random.default_rng(size[1])
    x = from_storage(stored(random_values(random, (2, 48, *size), tier) + offset, tier))
    mean, rstd = statistics(tier, x)
    expected_mean, expected_rstd = norm_numpy(x)
    error = gamma(size[1] + 1) * np.abs(x).mean(axis=(2, 3)) + UNIT["float32"] * np.abs(expected_mean)
    assert_within(mean[:, :48], expected_mean, error)
    # A line's mean is off by at most `error`: that enters the variance, like the roundings of its sum.
    variance = x.var(axis=(2, 3))
    off = gamma(size[1] + 4) * variance + 2 * error * np.sqrt(variance) + error**2
    assert_within(rstd[:, :48], expected_rstd, expected_rstd * (off / (2 * (variance + 1e-5)) + 2 * UNIT["float32"]))
    assert not mean[:, 48:].any()
    assert np.isfinite(rstd[:, 48:]).all()


@each_tier
def test_neither_threads_nor_batch_change_a_bit(tier: Tier) -> None:
    x = random_values(np.random.default_rng(0), (3, 64, 9, 5), tier)
    whole = statistics(tier, x)
    for one, other in zip(whole, statistics(tier, x, threads=3), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(whole, statistics(tier, x[1:2]), strict=True):
        assert np.array_equal(one[1:2], other)
