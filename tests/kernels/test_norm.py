"""Norm: every ISA against the float64 specification, including data on which a one-pass variance cancels."""

from __future__ import annotations

import numpy as np
import pytest
from native import each_isa, plain, poison, random_values, run_steps, stored
from tolerances import UNIT, assert_within, gamma

from kernels.isa import Isa
from kernels.layouts import Array, aligned_empty, from_storage
from kernels.ops.norm import norm, norm_numpy


def statistics(isa: Isa, x: Array, threads: int = 1) -> tuple[Array, Array]:
    shape = (x.shape[0], -(-x.shape[1] // 32) * 32)
    mean, rstd = (poison(aligned_empty(shape, np.float32)) for _ in range(2))
    run_steps(norm(isa, plain(x, isa), mean, rstd), threads=threads)
    return mean, rstd


@each_isa
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (12, 33), (64, 8)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_against_twin(isa: Isa, size: tuple[int, int], offset: float) -> None:
    random = np.random.default_rng(size[1])
    x = from_storage(stored(random_values(random, (2, 48, *size), isa) + offset, isa))
    mean, rstd = statistics(isa, x)
    expected_mean, expected_rstd = norm_numpy(x)
    error = gamma(size[1] + 1) * np.abs(x).mean(axis=(2, 3)) + UNIT["float32"] * np.abs(expected_mean)
    assert_within(mean[:, :48], expected_mean, error)
    # The mean of a line has an error of at most `error`, which enters the variance beside the rounding of its sum.
    variance = x.var(axis=(2, 3))
    off = gamma(size[1] + 4) * variance + 2 * error * np.sqrt(variance) + error**2
    assert_within(rstd[:, :48], expected_rstd, expected_rstd * (off / (2 * (variance + 1e-5)) + 2 * UNIT["float32"]))
    assert not mean[:, 48:].any()
    assert np.isfinite(rstd[:, 48:]).all()


@each_isa
def test_neither_threads_nor_batch_change_a_bit(isa: Isa) -> None:
    x = random_values(np.random.default_rng(0), (3, 64, 9, 5), isa)
    whole = statistics(isa, x)
    for one, other in zip(whole, statistics(isa, x, threads=3), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(whole, statistics(isa, x[1:2]), strict=True):
        assert np.array_equal(one[1:2], other)
