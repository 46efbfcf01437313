"""Errors of the HTTP door: RFC 9457 `application/problem+json` with a type that stays the same."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

TYPE_PREFIX = "urn:spade:problem:"

# kind: (HTTP status, title)
KINDS: dict[str, tuple[int, str]] = {
    "invalid-request": (400, "The request is wrong"),
    "unauthenticated": (401, "A key is needed"),
    "not-found": (404, "Nothing is here"),
    "method-not-allowed": (405, "This method is not offered here"),
    "not-acceptable": (406, "No such answer is offered"),
    "request-timeout": (408, "The body took too long"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body has a type that is not read here"),
    "too-many-requests": (429, "This client has asked for more than its share"),
    "client-closed": (499, "The client has gone"),
    "internal": (500, "The server failed"),
    "queue-full": (503, "The queue is full"),
    "unavailable": (503, "The model does not answer"),
    "timeout": (504, "The answer took too long"),
}
_OPENAI = "/v1/images/"
_KIND_OF_STATUS = {status: kind for kind, (status, _) in reversed(KINDS.items())}


class Problem(Exception):
    """An error that the client is told.

    Attributes:
        kind: a key of `KINDS`.
        detail: the text for the person who reads the error.
        headers: headers of the answer, such as Retry-After.
    """

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})

    def members(self) -> dict[str, Any]:
        """The members of RFC 9457."""
        status, title = KINDS[self.kind]
        return {"type": TYPE_PREFIX + self.kind, "title": title, "status": status, "detail": self.detail}

    def response(self, request: Request) -> Response:
        """The members of RFC 9457, and the id of the request. OpenAI's clients read `error`."""
        status, title = KINDS[self.kind]
        body = self.members()
        if (request_id := request.scope.get("state", {}).get("request_id")) is not None:
            body["request_id"] = request_id
        if request.url.path.startswith(_OPENAI):
            body["error"] = {"message": self.detail, "type": title, "code": self.kind, "param": None}
        return Response(json.dumps(body), status, self.headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Have `app` answer every error as a problem."""
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(HTTPException, _answer_framework)
    app.add_exception_handler(Exception, _answer_fault)


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request)


async def _answer_framework(request: Request, error: Exception) -> Response:
    """Errors that FastAPI raises by itself: no such path, no such method."""
    assert isinstance(error, HTTPException)
    kind = _KIND_OF_STATUS.get(error.status_code, "invalid-request")
    detail = f"[http] expected a path and a method of /openapi.json but got {request.method} {request.url.path}"
    return Problem(kind, detail, error.headers).response(request)


async def _answer_fault(request: Request, error: Exception) -> Response:
    """A fault of this server: the client is told where its details are."""
    reference = secrets.token_hex(4)
    log.error("internal error %s", reference, exc_info=error)
    return Problem("internal", f"[http] internal error {reference}; the server's log has the details").response(request)
