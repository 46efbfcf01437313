"""Errors of the HTTP door: RFC 9457 `application/problem+json` with a type that stays the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

TYPE_PREFIX = "urn:spade:problem:"

# kind: (HTTP status, title)
KINDS: dict[str, tuple[int, str]] = {
    "invalid-request": (400, "The request is wrong"),
    "unauthenticated": (401, "A key is needed"),
    "not-found": (404, "Nothing is here"),
    "method-not-allowed": (405, "This method is not offered here"),
    "not-acceptable": (406, "No such answer is offered"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body has a type that is not read here"),
    "too-many-requests": (429, "This client has asked for more than its share"),
    "internal": (500, "The server failed"),
    "queue-full": (503, "The queue is full"),
    "unavailable": (503, "The model does not answer"),
    "timeout": (504, "The answer took too long"),
}
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

    @property
    def status(self) -> int:
        return KINDS[self.kind][0]

    def body(self) -> dict[str, Any]:
        """The members of RFC 9457."""
        status, title = KINDS[self.kind]
        return {"type": TYPE_PREFIX + self.kind, "title": title, "status": status, "detail": self.detail}

    def response(self) -> Response:
        return Response(json.dumps(self.body()), self.status, self.headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Have `app` answer every error as a problem."""
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(HTTPException, _answer_framework)


async def _answer(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _answer_framework(request: Request, error: Exception) -> Response:
    """Errors that FastAPI raises by itself: no such path, no such method."""
    assert isinstance(error, HTTPException)
    kind = _KIND_OF_STATUS.get(error.status_code, "invalid-request")
    detail = f"[http] expected a path and a method of /openapi.json but got {request.method} {request.url.path}"
    return Problem(kind, detail, error.headers).response()
