"""The Prometheus metrics of both models: one table that declares each metric, and the writer to Triton."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger(__name__)

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SHORT_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_BATCH = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
_SHARE = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)

OUTCOMES = ("ok", "invalid", "refused", "cancelled", "failed")


@dataclass(frozen=True)
class Metric:
    """One metric. `buckets`: upper bounds of a histogram; `by_outcome`: one series for each of `OUTCOMES`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    buckets: tuple[float, ...] = ()
    by_outcome: bool = False


SPADE = (
    Metric("spade_requests_total", "counter", "Requests by outcome", by_outcome=True),
    Metric("spade_weights_info", "gauge", "1, with the sha256 of the weights as a label"),
    Metric("spade_waiting_requests", "gauge", "Requests that wait for a batch"),
    Metric("spade_images_total", "counter", "Images synthesised"),
    Metric("spade_cached_maps_total", "counter", "Label maps whose plan and codebooks were at hand"),
    Metric("spade_redrawn_maps_total", "counter", "Label maps of which a session drew only what had changed"),
    Metric("spade_session_bytes", "gauge", "Memory of the maps that sessions keep"),
    Metric("spade_request_seconds", "histogram", "Request, from the start of its batch to its answer", _SECONDS),
    Metric("spade_queue_seconds", "histogram", "Request, from sent_unix_us to the start of its batch", _SECONDS),
    Metric("spade_batch_size", "histogram", "Label maps in one engine batch", _BATCH),
    Metric("spade_plan_seconds", "histogram", "Engine batch: label maps to distinct patches and index", _SHORT_SECONDS),
    Metric("spade_codebook_seconds", "histogram", "Engine batch: embed and codebooks", _SECONDS),
    Metric("spade_convs_seconds", "histogram", "Engine batch: the rest of the generator", _SECONDS),
    Metric(
        "spade_distinct_patch_ratio", "histogram", "Engine batch: distinct 5x5 patches per pixel, all levels", _SHARE
    ),
)
SPADE_IMAGE = (
    Metric("spade_image_requests_total", "counter", "Requests by outcome", by_outcome=True),
    Metric("spade_image_decode_seconds", "histogram", "Request: PNG decoding and NEAREST resize", _SHORT_SECONDS),
    Metric("spade_image_encode_seconds", "histogram", "Request: PNG, JPEG or WebP encoding", _SHORT_SECONDS),
)


FLUSH_S = 0.5
Write = Callable[[float], None]


class Metrics:
    """Registers `metrics` with Triton and writes their values.

    Writing one value exchanges messages with the server's process, which takes about 0.1 ms and wakes threads on the
    engine's cores. So a thread writes all values every `FLUSH_S` seconds: counters as one sum, gauges as their last
    value. A scrape may lag behind by that time.

    The label `process` makes the series this process's own. Triton keeps series with equal labels in one piece of
    memory, and frees the memory when the first process removes its series, while others still write (server#8663).

    Args:
        pb_utils: the module that the Python backend gives to a model.
        labels: labels of every series.
        own: by the name of a metric, labels of that metric alone.
    """

    def __init__(
        self,
        pb_utils: Any,
        metrics: tuple[Metric, ...],
        labels: Mapping[str, str],
        own: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        common = {**labels, "process": str(os.getpid())}
        kinds = {
            "counter": pb_utils.MetricFamily.COUNTER,
            "gauge": pb_utils.MetricFamily.GAUGE,
            "histogram": pb_utils.MetricFamily.HISTOGRAM,
        }
        self._families: list[Any] = []  # kept, since a series lives as long as its family
        self._series: dict[str, Any] = {}
        for metric in metrics:
            family = pb_utils.MetricFamily(name=metric.name, description=metric.description, kind=kinds[metric.kind])
            self._families.append(family)
            labels = {**common, **(own or {}).get(metric.name, {})}
            if metric.by_outcome:
                for outcome in OUTCOMES:
                    self._series[f"{metric.name}.{outcome}"] = family.Metric(labels={**labels, "outcome": outcome})
            elif metric.kind == "histogram":
                self._series[metric.name] = family.Metric(labels=labels, buckets=list(metric.buckets))
            else:
                self._series[metric.name] = family.Metric(labels=labels)
        self._lock = threading.Lock()
        self._observed: list[tuple[Write, float]] = []
        self._gauges: dict[Write, float] = {}
        self._sums: Counter[Write] = Counter()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write, name="metrics", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Remove the series from the scrape. Without this call the series would stay after the process has ended."""
        self._closing.set()
        self._writer.join()
        self._series.clear()
        self._families.clear()

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        with self._lock:
            self._observed.append((self._series[name].observe, value))

    def increment(self, name: str, by: int = 1) -> None:
        """Add to a counter; the name of a counter by outcome is `NAME.OUTCOME`."""
        with self._lock:
            self._sums[self._series[name].increment] += by

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[self._series[name].set] = value

    def _write(self) -> None:
        while not self._closing.wait(FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            # Counters come last, so that a scrape which counts a request also holds the request's times.
            writes = [*self._observed, *self._gauges.items(), *(+self._sums).items()]
            self._observed, self._gauges, self._sums = [], {}, Counter()
        for write, value in writes:
            try:
                write(value)
            except Exception:
                log.exception("a metric was not written")
