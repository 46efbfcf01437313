"""How far a kernel may be from its float64 specification: bounds derived from its roundings, never tuned.

u is the unit roundoff of a dtype: half the distance from 1 to the next number. A float32 sum of n terms, in any order,
has an error of at most gamma(n) times the sum of the terms' absolute values, with gamma(n) = n u / (1 - n u) (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, section 4.2). A product in each term adds one to n. Storing a
result as T adds u(T) times the result.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UNIT = {"float32": 2.0**-24, "bf16": 2.0**-8, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SMALLEST = 2.0**-126  # smallest normal number of float32 and bf16; bf16 instructions flush smaller numbers


def gamma(n: int, dtype: str = "float32") -> float:
    """Return the relative error of n roundings."""
    return n * UNIT[dtype] / (1 - n * UNIT[dtype])


def sum_bound(
    sizes: npt.ArrayLike, length: int, result: npt.ArrayLike, dtype: str = "float32"
) -> npt.NDArray[np.float64]:
    """Return the error bound of a sum of `length` products, stored as dtype. sizes: sum of the absolute products."""
    return stored_bound(gamma(length + 1) * np.asarray(sizes, np.float64) + (length + 1) * SMALLEST, result, dtype)


def stored_bound(computed: npt.ArrayLike, result: npt.ArrayLike, dtype: str) -> npt.NDArray[np.float64]:
    """Return the error bound of a value whose error is at most `computed` before it is stored as dtype."""
    bound = np.asarray(computed, np.float64)
    subnormal = 2.0**-25 if dtype == "float16" else SMALLEST  # half the smallest subnormal
    return bound + UNIT[dtype] * (np.abs(np.asarray(result, np.float64)) + bound) + subnormal


def normalised_rounding(count: int, dtype: str = "float32", stored: int = 0) -> float:
    """Return the error of a normalised value relative to the sizes that enter it.

    Mean and variance are sums of `count` values, each with an error of at most gamma(count), and about ten operations
    follow. `stored` intermediate values are rounded to dtype.
    """
    return gamma(2 * count + 10) + stored * UNIT[dtype]


def assert_within(actual: npt.ArrayLike, expected: npt.ArrayLike, bound: npt.ArrayLike) -> None:
    """Assert |actual - expected| <= bound everywhere; NaN and infinity in actual always fail."""
    got, wanted = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert got.shape == wanted.shape, f"shape {got.shape}, expected {wanted.shape}"
    limit = np.broadcast_to(np.asarray(bound, np.float64), wanted.shape)
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(got - wanted) <= limit)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{bad.sum()} of {bad.size} out of bounds; first at {at}: "
            f"got {got[at]!r}, expected {wanted[at]!r} within {limit[at]:.3g}"
        )
