"""The gateway's and the supervisor's metrics, which the scrape shows beside those of Triton and its models."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from serving.gateway.queue import DeadlineError, FairQueue, RefusedError, Why
from serving.gateway.sessions import LiveSessions
from serving.supervisor.status import read_status
from serving.supervisor.ward import Reason
from serving.traces import trace_id

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PARTS = ("triton", "gateway")
_OUTCOMES = ("met", "refused", "missed", "failed", "cancelled")


class GatewayMetrics:
    """Counts requests, and reads the queue and the supervisor's status when it is scraped.

    Args:
        queue: of the requests that wait for the model.
        waiting: most maps that may wait in the queue.
        status_fd: the page of the supervisor's status.
    """

    def __init__(self, queue: FairQueue, waiting: int, status_fd: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series
        self.registry = registry = CollectorRegistry()
        registry.register(_Supervisor(status_fd))
        ProcessCollector(namespace="spade_gateway", registry=registry)
        self._requests = Counter(
            "spade_gateway_requests_total", "Requests by door, call and status", ("door", "call", "status"),
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "spade_gateway_request_seconds", "Request, from its arrival to its answer", ("door", "call"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._own_seconds = Histogram(
            "spade_gateway_own_seconds", "Request, from its arrival to its answer, less its turn and Triton's time",
            ("door", "call"), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._queue_seconds = Histogram(
            "spade_gateway_queue_seconds", "Request that was sent on, from its arrival in the queue to its turn",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._refused = _by(
            Counter("spade_gateway_refused_total", "Requests that the queue refused", ("reason",), registry=registry),
            get_args(Why),
        )
        self._deadlines = _by(
            Counter(
                "spade_gateway_deadlines_total", "Requests with a deadline of their own, by what became of it",
                ("outcome",), registry=registry,
            ),
            _OUTCOMES,
        )  # fmt: skip
        self._deadline_seconds = Histogram(
            "spade_gateway_deadline_seconds", "Request with a deadline, the time it gives", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        limit = Gauge("spade_gateway_waiting_limit_maps", "Most label maps that may wait", registry=registry)
        limit.set(waiting)
        waits = Gauge("spade_gateway_waiting_maps", "Label maps that wait for a turn", registry=registry)
        waits.set_function(lambda: queue.waiting)
        sent = Gauge("spade_gateway_sent_maps", "Label maps that the model has", registry=registry)
        sent.set_function(lambda: queue.in_flight)
        self._live = Gauge(
            "spade_gateway_live_sessions", "Sessions of live painting that the gateway keeps", registry=registry
        )
        self._connected = Gauge(
            "spade_gateway_live_connections", "Sessions of live painting that a client is connected to",
            registry=registry,
        )  # fmt: skip

    def watch_live(self, sessions: LiveSessions) -> None:
        """Show these sessions."""
        self._live.set_function(lambda: len(sessions))
        self._connected.set_function(lambda: sessions.connected)

    def count(self, door: str, call: str, status: str, seconds: float, away_s: float, traceparent: str) -> None:
        """Count a request. `call` is a route or a method, of which there are few; `away_s`: see `away`."""
        exemplar = _exemplar(traceparent)
        self._own_seconds.labels(door, call).observe(max(0.0, seconds - away_s), exemplar)
        self._requests.labels(door, call, status).inc(exemplar=exemplar)
        self._seconds.labels(door, call).observe(seconds, exemplar)

    def turn(self, seconds: float, traceparent: str | None) -> None:
        """A request waited `seconds` for its turn in the queue, and has it."""
        self._queue_seconds.observe(seconds, _exemplar(traceparent))

    @contextlib.contextmanager
    def draws(self, deadline_s: float | None) -> Iterator[None]:
        """Count how the drawing of a request within the block ends."""
        outcome = "cancelled"
        try:
            yield
            outcome = "met"
        except RefusedError as error:
            outcome = "refused"
            self._refused[error.reason].inc()
            raise
        except DeadlineError:
            outcome = "missed"
            if deadline_s is None:
                self._refused["waited"].inc()
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            if deadline_s is not None:
                self._deadlines[outcome].inc()
                self._deadline_seconds.observe(max(0.0, deadline_s))


class _Supervisor:
    """What the supervisor knows, and what runs here."""

    def __init__(self, status_fd: int) -> None:
        self._status_fd = status_fd

    def collect(self) -> Iterator[Metric]:
        """Read the status. A reason that never was is 0, so that the first restart is an increase."""
        status = read_status(self._status_fd)
        yield GaugeMetricFamily("spade_up", "Whether Triton answers, as the supervisor knows", int(status.ready))
        restarts = CounterMetricFamily(
            "spade_restarts_total", "Processes that the supervisor replaced, by reason", labels=("part", "reason")
        )
        never = {(part, reason): 0 for part in _PARTS for reason in get_args(Reason)}
        for labels, count in sorted((never | status.restarts).items()):
            restarts.add_metric(labels, count)
        yield restarts
        build = {"version": importlib.metadata.version("spade-serve"), "python": platform.python_version()}
        yield InfoMetricFamily("spade_build", "The version that serves", build)


def _by(counter: Counter, values: Sequence[str]) -> dict[str, Counter]:
    """A series for each value from the start, so that the first event is an increase."""
    return {value: counter.labels(value) for value in values}


def _exemplar(traceparent: str | None) -> dict[str, str] | None:
    return None if traceparent is None else {"trace_id": trace_id(traceparent)}
