"""From an order to images: the parts that go to the model, what comes back, and the tag that names it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import TypeVar

import grpc
from fastapi import Request

from serving.gateway.orders import Order
from serving.gateway.problems import Problem
from serving.gateway.queue import DeadlineError, RefusedError
from serving.gateway.state import State, caller_of, trace_of
from serving.gateway.upstream import Answer, UpstreamError
from serving.protocol import RequestTimings, joined_timings, read_timings
from serving.triton.identity import IDENTIFY, Identity, read_identity

log = logging.getLogger(__name__)

_KINDS = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid-request",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.NOT_FOUND: "unavailable",  # while the server stops
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
}
_TAG_VERSION = 1  # count up where equal requests begin to give other bits
Result = TypeVar("Result")


@dataclass(frozen=True)
class Drawn:
    """Image files, where their time went, and what drew them (None for an engine file on Triton's own backend)."""

    files: list[bytes]
    timings: RequestTimings
    identity: Identity | None


async def draw(state: State, order: Order, request: Request) -> Drawn:
    """Draw the images of an order, in parts of the model's largest batch, on its caller's account. Raises Problem."""
    caller = caller_of(request)
    caller.take(order.count)
    metadata = trace_of(request)
    try:
        model = await state.model()
        most = model.info.max_batch
        parts = [slice(first, first + most) for first in range(0, order.count, most)]
        parameters = order.parameters() | {"sent_unix_us": time.time_ns() // 1000}
        if model.identity is not None:
            parameters[IDENTIFY] = True

        def send(part: slice) -> Awaitable[Answer]:
            return state.upstream.infer(
                "spade_image", order.tensors(part), parameters, order.deadline_s, client=caller.queue, metadata=metadata
            )

        answers = [await send(parts[0])] if len(parts) == 1 else await _all([send(part) for part in parts])
    except (UpstreamError, RefusedError, DeadlineError) as error:
        raise as_problem(error) from None
    identity = None if model.identity is None else read_identity(answers[0])
    timings = joined_timings([(len(answer.as_numpy("timings")), read_timings(answer)) for answer in answers])
    return Drawn([file for answer in answers for file in _files(answer)], timings, identity)


async def _all(calls: list[Awaitable[Answer]]) -> list[Answer]:
    """The answers of all; the first error ends the wait, and drops what waits."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _files(answer: Answer) -> list[bytes]:
    rows, lengths = answer.as_numpy("image"), answer.as_numpy("image_bytes")[:, 0]
    return [row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)]


def as_problem(error: Exception) -> Problem:
    """An error on the way to the model, for a client of HTTP."""
    match error:
        case RefusedError():
            return Problem("queue-full", str(error), {"Retry-After": str(error.retry_after_s)})
        case DeadlineError():
            return Problem("timeout", str(error))
        case UpstreamError():
            kind = _KINDS.get(error.code, "internal")
            text = str(error).strip()
            if text.startswith("[") and not text.startswith("[request id"):
                return Problem(kind, text, {"Retry-After": "1"} if kind == "unavailable" else None)
    # Triton's own words may name paths and addresses: they go to the log.
    reference = secrets.token_hex(4)
    log.error("upstream error %s: %s", reference, error)
    kind = _KINDS.get(error.code, "internal") if isinstance(error, UpstreamError) else "internal"
    detail = f"[upstream] expected an answer of the model but got an error; the server's log has it under {reference}"
    return Problem(kind, detail, {"Retry-After": "1"} if kind == "unavailable" else None)


def tag_of(order: Order, identity: Identity | None, media_type: str) -> str | None:
    """The entity tag of the answer to an order: equal for equal bits. None where it is not known what draws.

    Weak where an engine's rounding may depend on the batch.
    """
    if identity is None:
        return None
    digest = hashlib.sha256()
    rest = [_TAG_VERSION, asdict(identity), order.parameters(), order.seeds, order.count, media_type]
    styles = b"" if order.styles is None else order.styles.tobytes()
    for part in (json.dumps(rest).encode(), order.label_map, order.instance_map or b"", styles):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return f'{"" if identity.exact else "W/"}"{digest.hexdigest()[:32]}"'


def matches(header: str | None, tag: str | None) -> bool:
    """Whether If-None-Match names a tag, by the weak comparison of RFC 9110."""
    if header is None or tag is None:
        return False
    known = {one.strip().removeprefix("W/") for one in header.split(",")}
    return header.strip() == "*" or tag.removeprefix("W/") in known


async def while_there(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves: what waits for its turn is then dropped."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise Problem("client-closed", "[http] the client has gone")
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


async def _gone(request: Request) -> None:
    """Return when the client of a request whose body was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
