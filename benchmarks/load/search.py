"""Searches over rates of an open loop: to the knee, and to the highest rate within a bound on latency."""

from __future__ import annotations

from collections.abc import Callable

GROWTH = 1.3
_MOST_STEPS = 24

Holds = Callable[[float], bool]
"""Measures a rate (requests/s), and says whether the server holds it."""


def highest_rate(holds: Holds, start: float, halvings: int) -> float | None:
    """The highest rate that `holds`, from `start` on; None where no rate of the search does.

    Rates grow (or shrink) by 1.3 until one holds and the next does not. Then the gap is halved `halvings` times, so
    the result is short of the true limit by at most 0.3 / 2**halvings of itself.
    """
    good, bad = 0.0, 0.0
    rate = start
    for _ in range(_MOST_STEPS):
        if holds(rate):
            good = rate
            if bad:
                break
            rate *= GROWTH
        else:
            bad = rate
            if good:
                break
            rate /= GROWTH
    for _ in range(halvings if good and bad else 0):
        middle = (good + bad) / 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good or None
