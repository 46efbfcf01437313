"""The comparison that all kernel tests use can fail."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.tolerances import UNIT, assert_within, sum_bound


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1.0, 1.0 + 2e-6])
def test_out_of_bounds(wrong: float) -> None:
    with pytest.raises(AssertionError, match="out of bounds"):
        assert_within([1.0, wrong], [1.0, 1.0], 1e-6)


def test_within() -> None:
    assert_within([1.0 + 1e-7], [1.0], 1e-6)


def test_shapes_must_agree() -> None:
    with pytest.raises(AssertionError, match="shape"):
        assert_within([1.0], [1.0, 1.0], 1.0)


def test_a_float32_sum_is_within_and_a_bf16_one_is_not() -> None:
    terms = np.random.default_rng(0).standard_normal(1000)
    exact = terms.astype(np.float32).astype(np.float64).sum()
    bound = sum_bound(np.abs(terms).sum(), len(terms), exact)
    assert abs(np.cumsum(terms.astype(np.float32))[-1] - exact) <= bound
    assert bound < UNIT["bf16"] * np.abs(terms).sum()
