"""Ratios of paired turns, with a confidence interval by bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """The geometric mean of the ratios of paired turns. Without at least two pairs, `low` and `high` are NaN."""

    value: float
    low: float
    high: float
    turns: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.2f}x"
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"


def paired_ratio(over: Sequence[float | None], under: Sequence[float | None]) -> Ratio | None:
    """`over` / `under`, turn by turn, as far as both go; None where no turn has both values above 0.

    Turn i of both met the same maps under the same state of the machine, so what they share cancels. The interval
    (95 %) comes from drawing whole turns with replacement. Source: Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, the percentile interval.
    """
    pairs = [(a, b) for a, b in zip(over, under, strict=False) if a is not None and b is not None and a > 0 and b > 0]
    if not pairs:
        return None
    logs = np.log(np.array(pairs, np.float64)) @ np.array([1.0, -1.0])
    value = math.exp(float(logs.mean()))
    if len(logs) < 2:
        return Ratio(value, math.nan, math.nan, 1)
    drawn = np.random.default_rng(0).integers(0, len(logs), (RESAMPLES, len(logs)))
    low, high = np.exp(np.quantile(logs[drawn].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    return Ratio(value, float(low), float(high), len(logs))
