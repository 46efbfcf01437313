"""What both Triton models share: how they start, and how an error becomes an answer and a count."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from serving.engines.contract import DeviceLostError
from serving.requests.batcher import QueueFullError
from serving.requests.deadlines import CancelledError, WaitedTooLongError
from serving.traces import TRACEPARENT, Attributes, Tracer
from serving.triton.metrics import Metrics
from serving.triton.protocol import MARK_OUTCOME, check_parameters, mark_outcome
from serving.triton.tensors import silence_capsules

_CODES = {"invalid": "INVALID_ARG", "refused": "UNAVAILABLE", "cancelled": "CANCELLED", "failed": "INTERNAL"}
"""Triton's code for each outcome of `serving.triton.metrics.OUTCOMES` that is an error."""


def code_of(outcome: str) -> Any:
    """Triton's number of the code. Triton fills `pb_utils` only after it has imported the model."""
    return getattr(pb_utils.TritonError, _CODES[outcome])


def outcome_of(code: Any) -> str:
    """The outcome that has a code; `failed` for any other code."""
    return next((outcome for outcome in _CODES if code_of(outcome) == code), "failed")


class UpstreamError(RuntimeError):
    """An error that `spade` answered to `spade_image`. The client gets the same message and the same outcome."""

    def __init__(self, message: str, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Call:
    """One request and its answer.

    Attributes:
        request: Triton's request.
        parameters: the request's parameters.
        span: of the request in its trace; None for a request that comes without one.
    """

    def __init__(self, request: Any, model: str, tracer: Tracer) -> None:
        self.request = request
        self.parameters: dict[str, Any] = json.loads(request.parameters() or "{}")
        self._sender = request.get_response_sender()
        self._tracer = tracer
        traceparent = self.parameters.get(TRACEPARENT)
        self.span = tracer.begin(model, traceparent) if isinstance(traceparent, str) else None

    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return bool(self._sender.is_cancelled())

    def part(self, name: str, began_ns: int, ended_ns: int) -> None:
        """A part of the request's span, which is over. The times are nanoseconds since 1970."""
        if self.span is not None:
            self._tracer.record(name, self.span.traceparent, began_ns, ended_ns)

    def answer(self, response: Any, outcome: str = "ok", attributes: Attributes | None = None) -> None:
        """Send the one and only response. Outcome and attributes go to the span."""
        if self.span is not None:  # before the response, so that the span ends within its caller's
            self.span.end({"spade.outcome": outcome, **(attributes or {})}, failed=outcome == "failed")
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class ServedModel(ABC):
    """A model of Triton's Python backend that answers every request through its own response sender.

    Attributes:
        name: `spade` or `spade_image`.
        metrics: the model's metrics, among them `NAME_requests_total`.
        tracer: where spans go.
    """

    name: str
    metrics: Metrics
    tracer: Tracer

    def __init__(self) -> None:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        silence_capsules()
        self._ending = False

    def execute(self, requests: Sequence[Any]) -> None:
        """Triton calls this with new requests. Each is answered later; an error of one is answered to that one."""
        for request in requests:
            call = Call(request, self.name, self.tracer)
            try:
                check_parameters(self.name, call.parameters)
                self.accept(call)
            except Exception as error:  # noqa: BLE001 - one request's failure must not reach the others
                self.refuse(call, error)

    @abstractmethod
    def accept(self, call: Call) -> None:
        """Start on a request. Raises what is wrong with the request."""

    def count(self, outcome: str) -> None:
        """Count a request's outcome."""
        self.metrics.increment(f"{self.name}_requests_total.{outcome}")

    def refuse(self, call: Call, error: Exception) -> None:
        """Count an error and answer it to the request's client."""
        outcome, message = self._explain(error)
        self.count(outcome)
        if call.parameters.get(MARK_OUTCOME):
            message = mark_outcome(message, outcome)
        call.answer(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code_of(outcome))), outcome)
        if isinstance(error, DeviceLostError):
            self._end_server(error)

    def _end_server(self, error: DeviceLostError) -> None:
        """Ask Triton, this process's parent, to end: it is no longer ready, and its supervisor starts a new one."""
        if not self._ending:
            self._ending = True
            logging.getLogger(self.name).critical("the server ends: %s", error)
            os.kill(os.getppid(), signal.SIGTERM)

    def _explain(self, error: Exception) -> tuple[str, str]:
        """The outcome that an error counts as, and what the client is told."""
        match error:
            case UpstreamError():
                return error.outcome, str(error)
            case CancelledError():
                return "cancelled", f"[{self.name}] the client cancelled this request"
            case QueueFullError() | WaitedTooLongError():
                return "refused", str(error)
            case ValueError():
                return "invalid", str(error)
        reference = secrets.token_hex(4)
        logging.getLogger(self.name).error("internal error %s", reference, exc_info=error)
        return "failed", f"[{self.name}] internal error {reference}; the server's log has the details"
