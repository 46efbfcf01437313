"""Service level objectives, and the alerts on how fast their error budgets burn.

Each alert reads a long window, so that it is sure, and one a twelfth as long, so that it ends soon after the fault
(Site Reliability Workbook, chapter 5: multiwindow, multi-burn-rate alerts).
"""

# ruff: noqa: E501 - sentences of a page

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alerts import Alert

# Calls that draw images; the rest are probes, descriptions and pages.
DRAWING = 'call=~"/v1/synthesize|/v1/images/.+|/v2/.+/infer|ModelInfer|frame|variants"'
# Statuses that are no fault of the client.
FAULTS = 'status=~"5..|INTERNAL|UNAVAILABLE|UNKNOWN|DEADLINE_EXCEEDED|DATA_LOSS|UNIMPLEMENTED"'
SLOW_S = 2.0  # a bound of the buckets of spade_gateway_request_seconds
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True)
class Objective:
    """A promise over 30 days.

    Attributes:
        name: in names of rules and alerts.
        budget: the share of requests that may be bad.
        bad: what a bad request is, in words.
        ratio: PromQL of the share that is bad, with WINDOW for the window.
    """

    name: str
    budget: float
    bad: str
    ratio: str

    def record(self, window: str) -> str:
        """The name of the recorded ratio."""
        return f"spade:{self.name}_requests:ratio_rate{window}"


_ALL = f"sum by (job) (rate(spade_gateway_requests_total{{{DRAWING}}}[WINDOW]))"
_FAILED = f"sum by (job) (rate(spade_gateway_requests_total{{{DRAWING}, {FAULTS}}}[WINDOW]))"
_TIMED = f"sum by (job) (rate(spade_gateway_request_seconds_count{{{DRAWING}}}[WINDOW]))"
_FAST = f'sum by (job) (rate(spade_gateway_request_seconds_bucket{{{DRAWING}, le="{SLOW_S}"}}[WINDOW]))'

OBJECTIVES = (
    Objective(
        "failed",
        0.001,
        "a request for images that is answered by 5xx, or by gRPC's UNAVAILABLE, INTERNAL or DEADLINE_EXCEEDED",
        f"({_FAILED} or 0 * {_ALL}) / {_ALL}",
    ),
    Objective(
        "slow",
        0.05,
        f"a request for images that takes longer than {SLOW_S:g} s",
        f"1 - {_FAST} / {_TIMED}",
    ),
)


@dataclass(frozen=True)
class Burn:
    """How many times faster than allowed the budget burns, over two windows."""

    factor: float
    long: str
    short: str
    severity: Literal["page", "ticket"]


BURNS = (
    Burn(14.4, "1h", "5m", "page"),
    Burn(6, "6h", "30m", "page"),
    Burn(3, "1d", "2h", "ticket"),
    Burn(1, "3d", "6h", "ticket"),
)

_ACTIONS = {
    "failed": (
        "The dashboard SPADE Serve, overview, shows calls by status. 503 is overload or models that are replaced, 504 are deadlines, 500 a defect.",
        "503: see SpadeModelsDown, SpadeRestarts and SpadeOverloaded.",
        "500: the log has a traceback under the reference that the client got.",
        "An exemplar of `spade_gateway_requests_total` names a trace; with `--json-log` the same `trace_id` is in the log.",
    ),
    "slow": (
        "Compare `spade_gateway_queue_seconds` (waiting) with `spade_request_seconds` (drawing) on the dashboards.",
        "Waiting: add instances. Drawing: other programs on the machine, larger maps (`--max-pixels`), or maps with many distinct patches (`spade_distinct_patch_ratio`).",
        f"A model that needs longer than {SLOW_S:g} s by itself needs another objective: `SLOW_S` in `scripts/monitoring/objectives.py`.",
    ),
}


def recording_rules() -> list[dict[str, str]]:
    """The bad share of each objective in each window, and the rates that dashboards and autoscalers read."""
    rules = [
        {"record": objective.record(window), "expr": objective.ratio.replace("WINDOW", window)}
        for objective in OBJECTIVES
        for window in WINDOWS
    ]
    rules.append({"record": "spade:images:rate5m", "expr": "sum by (job) (rate(spade_images_total[5m]))"})
    return rules


def burn_alerts() -> tuple[Alert, ...]:
    """An alert for each severity of each objective."""
    return tuple(_burn_alert(objective, severity) for objective in OBJECTIVES for severity in ("page", "ticket"))


def _burn_alert(objective: Objective, severity: Literal["page", "ticket"]) -> Alert:
    parts = [
        f"({objective.record(burn.long)} > {burn.factor * objective.budget:.4g} "
        f"and {objective.record(burn.short)} > {burn.factor * objective.budget:.4g})"
        for burn in BURNS
        if burn.severity == severity
    ]
    speed = "fast" if severity == "page" else "slowly"
    rates = " or ".join(
        f"{burn.factor:g} times as fast as allowed over {burn.long} and {burn.short}"
        for burn in BURNS
        if burn.severity == severity
    )
    return Alert(
        f"Spade{objective.name.capitalize()}Budget{'Fast' if severity == 'page' else 'Slow'}",
        " or ".join(parts),
        "2m" if severity == "page" else "15m",
        severity,
        f"The budget of {objective.name} requests burns {speed}: {{{{ $value | humanizePercentage }}}} are {objective.name}",
        f"The objective is that at most {objective.budget:.1%} of the requests of 30 days are bad: {objective.bad}. "
        f"That budget burns {rates}.",
        _ACTIONS[objective.name],
    )
