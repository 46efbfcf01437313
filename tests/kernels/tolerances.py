"""How far a kernel may be from its float64 twin: derived from the roundings it makes, never tuned.

u is the unit roundoff of a dtype: half the distance from 1 to the next number. A float32 sum of n terms, in any order,
is off by at most gamma(n) times the sum of their sizes (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
section 4.2), with gamma(n) = n u / (1 - n u); a product in it adds one to n. Storing a result as T adds u(T) of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UNIT = {"float32": 2.0**-24, "bf16": 2.0**-8, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SMALLEST = 2.0**-126  # smallest normal number of float32 and bf16: bf16 instructions flush what lies below


def gamma(n: int, dtype: str = "float32") -> float:
    """Relative error of n roundings."""
    return n * UNIT[dtype] / (1 - n * UNIT[dtype])


def sum_bound(
    sizes: npt.ArrayLike, length: int, result: npt.ArrayLike, dtype: str = "float32"
) -> npt.NDArray[np.float64]:
    """Bound of a sum of `length` products whose sizes add up to `sizes`, stored as dtype."""
    return stored_bound(gamma(length + 1) * np.asarray(sizes, np.float64) + (length + 1) * SMALLEST, result, dtype)


def stored_bound(computed: npt.ArrayLike, result: npt.ArrayLike, dtype: str) -> npt.NDArray[np.float64]:
    """Bound of a value that is off by at most `computed` before it is stored as dtype."""
    bound = np.asarray(computed, np.float64)
    subnormal = 2.0**-25 if dtype == "float16" else SMALLEST  # half the distance of the numbers next to zero
    return bound + UNIT[dtype] * (np.abs(np.asarray(result, np.float64)) + bound) + subnormal


def normalised_rounding(count: int, dtype: str = "float32", stored: int = 0) -> float:
    """Relative to the sizes that enter a normalised value: its mean and variance are sums of `count` values, each off
    by at most gamma(count), and some ten operations follow; `stored` values in between are rounded to dtype."""
    return gamma(2 * count + 10) + stored * UNIT[dtype]


def assert_within(actual: npt.ArrayLike, expected: npt.ArrayLike, bound: npt.ArrayLike) -> None:
    """Every |actual - expected| <= bound; NaN and infinity in actual never are."""
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
