"""An OpenTelemetry collector: takes what an OTLP exporter sends over HTTP, and knows the spans of a trace."""

from __future__ import annotations

import gzip
import http.server
import threading
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from served import wait_until


@dataclass(frozen=True)
class Collected:
    """A span as it came. Times are nanoseconds since 1970; ids are hexadecimal digits."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, Any]
    failed: bool

    @property
    def milliseconds(self) -> float:
        return (self.ended - self.began) / 1e6


class Collector:
    """Listens on a port of this machine. Use as a context manager."""

    def __enter__(self) -> Collector:
        self._bodies: list[bytes] = []
        handler = type("Handler", (_Handler,), {"bodies": self._bodies})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_arguments: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[Collected]:
        """Every span that has come so far."""
        return [
            _read(span, {one.key: one.value.string_value for one in resource.resource.attributes})
            for body in list(self._bodies)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, trace: str, count: int) -> list[Collected]:
        """The spans of a trace, as soon as there are `count` of them."""
        wait_until(lambda: len(self._of(trace)) >= count, f"{count} spans of trace {trace}")
        return self._of(trace)

    def _of(self, trace: str) -> list[Collected]:
        return [span for span in self.spans() if span.trace == trace]


class _Handler(http.server.BaseHTTPRequestHandler):
    bodies: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""


def _read(span: Any, resource: dict[str, str]) -> Collected:
    attributes = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
    failed = span.status.code == span.status.STATUS_CODE_ERROR
    return Collected(
        resource["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.start_time_unix_nano, span.end_time_unix_nano, attributes, failed,
    )  # fmt: skip
