"""What happens to every request before its route and after: an id, a key, a limit, a trace, headers, a log line."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders

from serving.gateway.away import begin
from serving.gateway.callers import Caller, Callers, key_in
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.problems import Problem
from serving.traces import TRACEPARENT, Span, Tracer, trace_id

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
# What needs no key: probes, the description of the calls, and the page, which asks for a key itself.
_PUBLIC = ("/healthz", "/readyz", "/openapi.json", "/")
_PUBLIC_BELOW = ("/docs", "/v2/health/", "/studio")

SECURITY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_GONE = 499  # the client left before the answer
_FAILED = 500
_HSTS = {"Strict-Transport-Security": "max-age=31536000"}


class Entrance:
    """The way into `app` for HTTP requests and WebSockets. A route finds its caller and its trace in the scope.

    Args:
        tls: the door speaks TLS.
    """

    def __init__(self, app: App, callers: Callers, tracer: Tracer, metrics: GatewayMetrics, tls: bool) -> None:
        self._app, self._callers, self._tracer, self._metrics = app, callers, tracer, metrics
        self._headers = SECURITY | (_HSTS if tls else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began, away, headers = time.perf_counter(), begin(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        span = self._tracer.begin(f"{scope.get('method', 'WS')} {scope['path']}", headers.get(TRACEPARENT))
        scope.setdefault("state", {}).update(request_id=request_id, traceparent=span.traceparent, caller=None)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), scope)
            await send(message)

        try:
            scope["state"]["caller"] = self._admit(scope, headers)
        except Problem as problem:
            await _refuse(problem, scope, receive, answer)
        else:
            await self._app(scope, receive, answer)
        finally:
            self._end(scope, span, status, time.perf_counter() - began, away.seconds)

    def _admit(self, scope: Scope, headers: Headers) -> Caller:
        """The caller. Raises Problem for a wrong key, and for a caller that has used up its limit."""
        host, port = scope.get("client") or ("", 0)
        path, key = scope["path"], key_in(headers)
        if key is None and scope["type"] == "websocket":
            key = parse_qs(scope["query_string"].decode("latin-1")).get("key", [None])[0]  # browsers set no headers
        if path in _PUBLIC or path.startswith(_PUBLIC_BELOW):
            return Caller(None, f"{host}:{port}", None)
        caller = self._callers.admit(key, host, port)
        if scope.get("method") == "POST":
            caller.check()
        return caller

    def _add_headers(self, headers: MutableHeaders, scope: Scope) -> None:
        headers["X-Request-Id"] = scope["state"]["request_id"]
        for name, value in self._headers.items():
            headers.setdefault(name, value)
        caller = scope["state"]["caller"]
        if caller is not None and caller.limit is not None:
            headers.update(caller.limit.headers())

    def _end(self, scope: Scope, span: Span, status: int, seconds: float, away_s: float) -> None:
        method, path = scope.get("method", "WS"), scope["path"]
        attributes = {"http.request.method": method, "url.path": path, "http.response.status_code": status}
        span.end(attributes, failed=status >= _FAILED)
        if scope["type"] == "http":
            call = getattr(scope.get("route"), "path", "other")  # of a template, so that there are few
            self._metrics.count("http", call, str(status or _GONE), seconds, away_s, span.traceparent)
        if not log.isEnabledFor(logging.INFO):
            return
        caller = scope["state"]["caller"]
        fields = {
            "request_id": scope["state"]["request_id"],
            "trace_id": trace_id(span.traceparent),
            "client": (scope.get("client") or ("", 0))[0],
            "key": caller.name if caller else None,
            "method": method,
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 3),
        }
        log.info("%s %s %d", method, path, status, extra={"fields": fields})


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
        return
    await problem.response(Request(scope))(scope, receive, send)
