"""The gateway's own metrics, which the scrape shows beside Triton's and the supervisor's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.gateway.queue import FairQueue

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """Counts requests, and reads the queue when it is scraped.

    Args:
        queue: of the requests that wait for the model.
    """

    def __init__(self, queue: FairQueue) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "spade_gateway_requests_total", "Requests by door, call and status", ("door", "call", "status"),
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "spade_gateway_request_seconds", "Request, from its arrival to its answer", ("door", "call"),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        waiting = Gauge("spade_gateway_waiting_maps", "Label maps that wait for a turn", registry=self._registry)
        waiting.set_function(lambda: queue.waiting)
        sent = Gauge("spade_gateway_sent_maps", "Label maps that the model has", registry=self._registry)
        sent.set_function(lambda: queue.in_flight)

    def count(self, door: str, call: str, status: str, seconds: float) -> None:
        """Count a request. `call` is a route or a method, of which there are few."""
        self._requests.labels(door, call, status).inc()
        self._seconds.labels(door, call).observe(seconds)

    def scrape(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self._registry)
