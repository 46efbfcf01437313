"""Plan of volumes: the kernel equals its NumPy specification, and both give every voxel its own neighbourhood."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layouts import Array
from kernels.ops.plan import PlanError
from kernels.ops.plan_volume import plan_volumes, plan_volumes_numpy

FIELDS = ("patches3", "patches5", "index", "patches3_offsets", "patches5_offsets")


@st.composite
def volumes(draw: st.DrawFn) -> tuple[Array, int, int]:
    """Volumes from one symbol everywhere to a different symbol at every voxel."""
    shape = [draw(st.integers(1, 2)), *(draw(st.integers(1, 9)) for _ in range(3))]
    n_symbols = draw(st.sampled_from([1, 2, 5, 65535]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    symbols = random.integers(0, n_symbols, shape).astype(np.uint16)
    block = draw(st.integers(1, 4))
    places = np.ix_(np.arange(shape[0]), *(np.arange(size) // block for size in shape[1:]))
    return symbols[places], n_symbols, draw(st.sampled_from([1, 3, 5]))


@settings(deadline=None, max_examples=60)
@given(volumes())
def test_kernel_equals_its_specification(volume: tuple[Array, int, int]) -> None:
    native, numpy = plan_volumes(*volume), plan_volumes_numpy(*volume)
    for field in FIELDS:
        one, other = getattr(native, field), getattr(numpy, field)
        assert one.dtype == other.dtype, field
        np.testing.assert_array_equal(one, other, err_msg=field)


@settings(deadline=None, max_examples=30)
@given(volumes())
def test_every_voxel_has_its_own_neighbourhood(volume: tuple[Array, int, int]) -> None:
    symbols, n_symbols, k = volume
    level, r = plan_volumes(symbols, n_symbols, k), k // 2
    outside = len(level.patches3)
    patches3 = np.concatenate([level.patches3, np.full((1, k**3), -1, np.int32)])
    for n, one in enumerate(symbols.astype(np.int32)):
        padded = np.pad(one, 2 * r, constant_values=n_symbols)
        for place in np.ndindex(one.shape):
            for tap, offset in enumerate(np.ndindex(k, k, k)):
                centre = np.add(place, offset) - r
                number = level.patches5[level.index[(n, *place)], tap]
                if (centre < 0).any() or (centre >= one.shape).any():
                    assert number == outside
                else:
                    z, y, x = centre + r
                    seen = padded[z : z + k, y : y + k, x : x + k]
                    np.testing.assert_array_equal(patches3[number], seen.ravel())


@pytest.mark.parametrize(
    ("symbols", "n_symbols", "kernel_size", "said"),
    [
        (np.zeros((1, 2, 2, 2), np.uint16), 1, 2, "kernel_size 1, 3 or 5 but got 2"),
        (np.zeros((1, 2, 2, 2), np.uint16), 0, 3, "n_symbols in 1..65535 but got 0"),
        (np.zeros((2, 2, 2), np.uint16), 1, 3, r"\[N, D, H, W\].*\[2, 2, 2\]"),
        (np.zeros((1, 2, 0, 2), np.uint16), 1, 3, r"\[1, 2, 0, 2\]"),
        (np.full((1, 2, 2, 2), 3, np.uint16), 3, 3, "below n_symbols 3 but got 3"),
        (np.broadcast_to(np.uint16(0), (1, 4000, 4000, 4000)), 1, 3, "voxels"),
    ],
)
def test_wrong_arguments_are_named(symbols: Array, n_symbols: int, kernel_size: int, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan_volumes(symbols, n_symbols, kernel_size)
