"""Traces: the W3C's `traceparent` through to Triton, and spans to an OpenTelemetry collector where there is one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


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

    def end(self, attributes: Mapping[str, str | int | float]) -> None:
        """The request is answered."""


class Tracer(Protocol):
    """Begins spans."""

    def begin(self, name: str, traceparent: str | None) -> Span:
        """A span below a client's, or one of its own."""

    def close(self) -> None:
        """Send what was not sent."""


class _Ids:
    """A span that nobody collects: it only carries its ids on."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def end(self, attributes: Mapping[str, str | int | float]) -> None:
        """Nobody collects it."""


class IdsOnly:
    """Carries traces on without a collector."""

    def begin(self, name: str, traceparent: str | None) -> Span:  # noqa: ARG002 - a span without a collector has no name
        """A new id below the client's trace, or below a trace of its own, which is not sampled."""
        found = _TRACEPARENT.fullmatch(traceparent or "")
        known = found is not None and set(found[1]) != {"0"} and set(found[2]) != {"0"}
        trace, flags = (found[1], found[3]) if found and known else (secrets.token_hex(16), "00")
        return _Ids(f"00-{trace}-{secrets.token_hex(8)}-{flags}")

    def close(self) -> None:
        """There is nothing to send."""


class _Collected:
    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, attributes: Mapping[str, str | int | float]) -> None:
        self._span.set_attributes(dict(attributes))
        self._span.end()


class Collector:
    """Sends spans by OTLP over HTTP, as OpenTelemetry's environment variables say. Raises TracesError."""

    def __init__(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise TracesError(
                f"[traces] expected OpenTelemetry's packages, since {' or '.join(ENDPOINTS)} is set, but got {error}; "
                "pip install 'spade-serve[otel]', or unset the variable"
            ) from None
        name = os.environ.get("OTEL_SERVICE_NAME", "spade-gateway")
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("serving.gateway")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, traceparent: str | None) -> Span:
        """A span below the client's."""
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract({} if traceparent is None else {"traceparent": traceparent})
        return _Collected(self._tracer.start_span(name, context, SpanKind.SERVER))

    def close(self) -> None:
        """Send what was not sent."""
        self._provider.shutdown()


def make_tracer() -> Tracer:
    """A collector where OpenTelemetry's environment variables name one. Raises TracesError."""
    return Collector() if any(os.environ.get(name) for name in ENDPOINTS) else IdsOnly()
