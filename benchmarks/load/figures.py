"""The figures of a loop: rates, percentiles, refusals, and what the server says about itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.load import percentile
from benchmarks.load.loops import Shot
from serving.protocol import RequestTimings

SHARES = {"p50_s": 0.5, "p90_s": 0.9, "p95_s": 0.95, "p99_s": 0.99, "p999_s": 0.999}
MOST_KEPT = 5000  # latencies in a report


@dataclass(frozen=True)
class Window:
    """The requests of a loop, and the part [begin, end) of the loop that counts: seconds since the loop's start."""

    shots: Sequence[Shot]
    begin: float
    end: float

    @property
    def timed(self) -> list[Shot]:
        """The requests that were due in the window."""
        return [shot for shot in self.shots if self.begin <= shot.due_s < self.end]

    @property
    def images_s(self) -> float:
        """Images that the server computed in the window, a second."""
        return images_in(self.shots, self.begin, self.end) / (self.end - self.begin)

    @property
    def offered_images_s(self) -> float:
        """Images that were due in the window, a second."""
        return sum(shot.images for shot in self.timed) / (self.end - self.begin)

    def percentile_s(self, share: float) -> float | None:
        """A percentile of the latencies of answered requests; None without one."""
        return _known(percentile([shot.latency_s for shot in self.timed if shot.outcome == "ok"], share))


def figures(windows: Sequence[Window]) -> dict[str, Any]:
    """The figures of the same load, measured once or several times. Latencies count from the planned sending.

    Percentiles are of answered requests; a percentile is a value that was measured.
    """
    timed = [shot for window in windows for shot in window.timed]
    answered = [shot for shot in timed if shot.outcome == "ok"]
    latencies = sorted(shot.latency_s for shot in answered)
    counts = Counter(shot.outcome for shot in timed)
    refusals = [shot.done_s - shot.sent_s for shot in timed if shot.outcome == "refused"]
    return {
        "requests": len(timed),
        "answered": len(answered),
        "refused": counts["refused"],
        "timed_out": counts["timed out"],
        "failed": counts["failed"],
        "images_s": sum(window.images_s for window in windows) / len(windows),
        "offered_images_s": sum(window.offered_images_s for window in windows) / len(windows),
        **{name: _known(percentile(latencies, share)) for name, share in SHARES.items()},
        "max_s": latencies[-1] if latencies else None,
        "late_s": max((shot.sent_s - shot.due_s for shot in timed), default=0.0),
        "refusal_p50_s": _known(percentile(refusals, 0.5)),
        "refusal_p99_s": _known(percentile(refusals, 0.99)),
        **server_timings(answered),
        "latencies_ms": [round(1e3 * value, 2) for value in thinned(latencies)],
        "errors": dict(Counter(shot.detail[:200] for shot in timed if shot.outcome == "failed").most_common(3)),
        "measures": {
            "p50_s": [window.percentile_s(0.5) for window in windows],
            "p99_s": [window.percentile_s(0.99) for window in windows],
            "images_s": [window.images_s for window in windows],
        },
    }


def server_timings(shots: Sequence[Shot]) -> dict[str, Any]:
    """Medians of what the server times, beside what the client sees; None where the door tells no timings.

    `queue_s` runs from sending to the start of the batch, `engine_s` is the batch in the engine, `outside_s` is the
    rest of the latency: checks, copies, network, and the client itself. `batch_sizes` counts the engine's batches.
    """
    known = [(shot, shot.timings) for shot in shots if shot.timings is not None]
    batches: Counter[int] = Counter()
    for shot, timings in known:
        batches[round(timings.batch_size)] += shot.images
    return {
        "queue_s": _median([timings.queue_s for _, timings in known]),
        "engine_s": _median([timings.engine_s for _, timings in known]),
        "outside_s": _median([shot.latency_s - t.queue_s - t.engine_s for shot, t in known if t.queue_s >= 0]),
        "batch_sizes": {str(size): round(images / size, 2) for size, images in sorted(batches.items())},
    }


def images_in(shots: Sequence[Shot], begin: float, end: float) -> float:
    """Images computed in [begin, end); an image counts by the share of its batch's time inside."""
    images = 0.0
    for shot in shots:
        if shot.outcome == "ok":
            spent = max(_batch_seconds(shot.timings) or shot.latency_s, 1e-9)
            images += shot.images * max(0.0, min(end, shot.done_s) - max(begin, shot.done_s - spent)) / spent
    return images


def mean_batch(row: dict[str, Any]) -> float | None:
    """Label maps in an engine batch, on average."""
    batches = {int(size): count for size, count in row["batch_sizes"].items()}
    total = sum(batches.values())
    return sum(size * count for size, count in batches.items()) / total if total else None


def slow_share(window: Window, bound_s: float) -> float:
    """The share of the window's requests that were not answered within the bound; 1 without requests."""
    timed = window.timed
    good = sum(shot.outcome == "ok" and shot.latency_s <= bound_s for shot in timed)
    return 1 - good / len(timed) if timed else 1.0


def kept_up(window: Window) -> bool:
    """Whether the server computed what was asked: 95 % of the images, to within a request or two at the edges.

    At most 1 % of the requests may be refused, time out or fail. The rate of a backlog that grows falls behind.
    """
    timed = window.timed
    lost = sum(shot.outcome != "ok" for shot in timed)
    edges = 2 * max((shot.images for shot in timed), default=0) / (window.end - window.begin)
    return bool(timed) and lost <= 0.01 * len(timed) and window.images_s >= 0.95 * window.offered_images_s - edges


def thinned(values: Sequence[float], most: int = MOST_KEPT) -> list[float]:
    """At most `most` of the sorted values, evenly spaced, with the least and the largest."""
    if len(values) <= most:
        return list(values)
    return [values[round(k * (len(values) - 1) / (most - 1))] for k in range(most)]


def _batch_seconds(timings: RequestTimings | None) -> float | None:
    return None if timings is None or timings.total_s <= 0 else timings.total_s


def _median(values: Sequence[float]) -> float | None:
    return _known(percentile(values, 0.5))


def _known(value: float) -> float | None:
    """The value; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value
