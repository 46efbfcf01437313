"""Traces: the W3C's `traceparent` from part to part, and spans to an OpenTelemetry collector where there is one."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Mapping
from typing import Any, Protocol

TRACEPARENT = "traceparent"
"""The header of a request, over HTTP and gRPC, and the request parameter of a model."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_CLOSE_S = 3.0  # longest time to send the last spans; a collector that is away must not hold up the end of a server

Attributes = Mapping[str, str | int | float]


def trace_id(traceparent: str) -> str:
    """The trace of a `traceparent`: 32 hexadecimal digits."""
    return traceparent.split("-")[1]


class TracesError(RuntimeError):
    """Spans are asked for and cannot be sent."""


class Span(Protocol):
    """One request in a trace."""

    @property
    def traceparent(self) -> str:
        """For the calls that the request makes."""

    def end(self, attributes: Attributes, failed: bool = False) -> None:
        """The request is answered; `failed` where that is the server's fault."""


class Tracer(Protocol):
    """Begins spans."""

    def begin(self, name: str, traceparent: str | None) -> Span:
        """A span below a caller's, or one of its own."""

    def record(self, name: str, traceparent: str, began_ns: int, ended_ns: int) -> None:
        """A part, which is over, of the span that has this `traceparent`. The times are nanoseconds since 1970."""

    def close(self) -> None:
        """Send what was not sent."""


class _Ids:
    """A span that nobody collects: it only carries its ids on."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def end(self, attributes: Attributes, failed: bool = False) -> None:
        """Nobody collects it."""


class IdsOnly:
    """Carries traces on without a collector."""

    def begin(self, name: str, traceparent: str | None) -> Span:  # noqa: ARG002 - a span without a collector has no name
        """A new id below the client's trace, or below a trace of its own, which is not sampled."""
        found = _TRACEPARENT.fullmatch(traceparent or "")
        known = found is not None and set(found[1]) != {"0"} and set(found[2]) != {"0"}
        trace, flags = (found[1], found[3]) if found and known else (secrets.token_hex(16), "00")
        return _Ids(f"00-{trace}-{secrets.token_hex(8)}-{flags}")

    def record(self, name: str, traceparent: str, began_ns: int, ended_ns: int) -> None:
        """Nobody collects it."""

    def close(self) -> None:
        """There is nothing to send."""


class _Collected:
    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, attributes: Attributes, failed: bool = False) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(dict(attributes))
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Collector:
    """Sends spans by OTLP over HTTP, as OpenTelemetry's environment variables say. Raises TracesError.

    Args:
        service: the name of this process where OTEL_SERVICE_NAME gives none.
    """

    def __init__(self, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise TracesError(
                f"[traces] expected OpenTelemetry's packages, since {' or '.join(ENDPOINTS)} is set, but got {error}; "
                "pip install -e '.[otel]' in the checkout of SPADE Serve, or unset the variable"
            ) from None
        name = os.environ.get("OTEL_SERVICE_NAME", service)
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("spade-serve")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, traceparent: str | None) -> Span:
        """A span below the caller's."""
        from opentelemetry.trace import SpanKind

        return _Collected(self._tracer.start_span(name, self._context(traceparent), SpanKind.SERVER))

    def record(self, name: str, traceparent: str, began_ns: int, ended_ns: int) -> None:
        """See `Tracer.record`."""
        self._tracer.start_span(name, self._context(traceparent), start_time=began_ns).end(ended_ns)

    def close(self) -> None:
        """Send what was not sent, unless the collector takes too long."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_CLOSE_S)

    def _context(self, traceparent: str | None) -> Any:
        return self._propagator.extract({} if traceparent is None else {TRACEPARENT: traceparent})


def collected() -> bool:
    """Whether OpenTelemetry's environment variables name a collector."""
    return any(os.environ.get(name) for name in ENDPOINTS)


def make_tracer(service: str) -> Tracer:
    """A collector where OpenTelemetry's environment variables name one. Raises TracesError."""
    return Collector(service) if collected() else IdsOnly()
