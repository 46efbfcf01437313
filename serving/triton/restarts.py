"""The supervisor's count of restarts in Triton's own metrics, where no gateway shows it (`spade serve --direct`)."""

from __future__ import annotations

import json
import os
from typing import Any

from serving.triton.metrics import Metric

RESTARTS = "SPADE_RESTARTS"  # environment variable: JSON of the restarts so far by reason
METRIC = Metric("spade_restarts_total", "counter", "Processes that the supervisor replaced, by reason")


class Restarts:
    """Shows the counts that the supervisor gave to this Triton; nothing where it gave none.

    The labels are the same after a restart, so that a rate sees the step.

    Args:
        pb_utils: the module that the Python backend gives to a model.
        process: a label of its own, for models that may run twice at once; Triton frees series that two share
            (server#8663).
    """

    def __init__(self, pb_utils: Any, process: str | None) -> None:
        counts: dict[str, int] = json.loads(os.environ.get(RESTARTS, "{}"))
        self._kept: list[Any] = []  # a series lives as long as its family
        if not counts:
            return
        family = pb_utils.MetricFamily(
            name=METRIC.name, description=METRIC.description, kind=pb_utils.MetricFamily.COUNTER
        )
        self._kept.append(family)
        for reason, count in counts.items():
            labels = {"part": "triton", "reason": reason} | ({} if process is None else {"process": process})
            series = family.Metric(labels=labels)
            series.increment(count)
            self._kept.append(series)

    def close(self) -> None:
        """Remove the series from the scrape."""
        self._kept.clear()
