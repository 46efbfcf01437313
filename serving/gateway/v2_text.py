"""Errors of Triton in words for strangers."""

from __future__ import annotations

import logging
import secrets

import grpc

from serving.gateway.upstream import UpstreamError

log = logging.getLogger(__name__)

_NO_ID = "[request id: <id_unknown>] "  # Triton's prefix for requests without an id


def upstream_text(error: UpstreamError) -> str:
    """What a client is told. Errors of our models and of requests pass; others may name paths, and go to the log."""
    text = str(error).removeprefix(_NO_ID)
    if text.startswith("[") or error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        return text
    reference = secrets.token_hex(4)
    log.error("upstream error %s: %s: %s", reference, error.code.name, text)
    return f"[v2] expected an answer of the model but got an error; the server's log has it under {reference}"
