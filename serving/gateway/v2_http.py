"""The KServe v2 protocol over HTTP: each request is checked here, and goes on to Triton over gRPC.

Nothing of Triton's own HTTP server is used, which can be ended by nested JSON, by many small chunks, or by gzip.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Mapping
from typing import Any

import grpc
from fastapi import APIRouter, Request, Response
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.drawing import while_there
from serving.gateway.problems import KINDS, Problem
from serving.gateway.queue import DeadlineError, RefusedError
from serving.gateway.state import caller_of, state_of, trace_of
from serving.gateway.uploads import read_body
from serving.gateway.upstream import UpstreamError
from serving.gateway.v2_checks import V2Error, check_infer, deadline_s
from serving.gateway.v2_json import read_infer, write_answer, write_message
from serving.gateway.v2_read import read_only
from serving.gateway.v2_text import upstream_text

router = APIRouter(prefix="/v2", include_in_schema=False)

_LENGTH = "inference-header-content-length"
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_LARGE = 64 << 10  # bytes of JSON that a thread parses, so that the event loop goes on

_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


@router.get("/health/live")
async def live() -> Response:
    return Response()


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    state = state_of(request)
    return Response(status_code=200 if state.probe() and await state.upstream.ready() else 503)


@router.get("")
async def server(request: Request) -> Response:
    return await _asked(request, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)


@router.get("/models/stats")
async def all_statistics(request: Request) -> Response:
    return await _asked(request, "ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse)


@router.post("/repository/index")
async def index(request: Request) -> Response:
    return await _asked(request, "RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse, "models")


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}")
async def metadata(request: Request, model: str, version: str = "") -> Response:
    message = pb.ModelMetadataRequest(name=model, version=version)
    return await _asked(request, "ModelMetadata", message, pb.ModelMetadataResponse)


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready")
async def model_ready(request: Request, model: str, version: str = "") -> Response:
    message = pb.ModelReadyRequest(name=model, version=version)
    try:
        answer = await state_of(request).upstream.call("ModelReady", message.SerializeToString())
    except UpstreamError:
        return Response(status_code=503)
    return Response(status_code=200 if pb.ModelReadyResponse.FromString(answer).ready else 503)


@router.get("/models/{model}/config")
@router.get("/models/{model}/versions/{version}/config")
async def configuration(request: Request, model: str, version: str = "") -> Response:
    message = pb.ModelConfigRequest(name=model, version=version)
    return await _asked(request, "ModelConfig", message, pb.ModelConfigResponse, "config")


@router.get("/models/{model}/stats")
@router.get("/models/{model}/versions/{version}/stats")
async def statistics(request: Request, model: str, version: str = "") -> Response:
    message = pb.ModelStatisticsRequest(name=model, version=version)
    return await _asked(request, "ModelStatistics", message, pb.ModelStatisticsResponse)


@router.post("/models/{model}/infer")
@router.post("/models/{model}/versions/{version}/infer")
async def infer(request: Request, model: str, version: str = "") -> Response:
    try:
        return await _infer(request, model, version)
    except (Problem, V2Error, UpstreamError, RefusedError, DeadlineError) as error:
        return _error(error)


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
async def other(request: Request, path: str) -> Response:
    del path
    text = f"nothing is offered at {request.method} {request.url.path[:256]}; control interfaces are shut"
    return _error(V2Error(text, grpc.StatusCode.NOT_FOUND))


async def _infer(request: Request, model: str, version: str) -> Response:
    state = state_of(request)
    spec = await state.v2.spec(model)
    body = await _body(request)
    length = _json_length(request.headers.get(_LENGTH))
    if (len(body) if length is None else length) > _LARGE:
        message, binary = await asyncio.to_thread(read_infer, spec, body, length)
    else:
        message, binary = read_infer(spec, body, length)
    message.model_version = version
    maps = check_infer(message, spec)
    caller = caller_of(request)
    caller.take(maps)
    sent = state.upstream.forward(
        message.SerializeToString(), maps=maps, client=caller.queue, deadline_s=deadline_s(message),
        metadata=trace_of(request),
    )  # fmt: skip
    answer = pb.ModelInferResponse.FromString(await while_there(request, sent))
    text, length = write_answer(answer, binary)
    if length is None:
        return Response(text, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(length)}
    return Response(text, headers=headers, media_type="application/octet-stream")


async def _body(request: Request) -> bytes:
    """The body, unpacked: at most as many bytes as a body may have, so that no bomb takes more."""
    settings = state_of(request).settings
    most = settings.doors.max_body_bytes
    body = await read_body(request, most, settings.body_timeout_s)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return body
    if encoding not in _WINDOW:
        raise Problem(
            "unsupported-media-type", f"[v2] expected Content-Encoding gzip or deflate but got {encoding[:32]!r}"
        )
    return await asyncio.to_thread(_unpacked, body, _WINDOW[encoding], most)


def _unpacked(body: bytes, window: int, most: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    try:
        unpacked = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise V2Error(f"expected a body of the Content-Encoding it names but it cannot be unpacked: {error}") from None
    if len(unpacked) > most:
        raise Problem("too-large", f"[v2] expected a body of at most {most} bytes but it unpacks to more")
    if not unpacker.eof or unpacker.unused_data:
        raise V2Error("expected one whole packed body but it is cut off, or followed by more")
    return unpacked


def _json_length(header: str | None) -> int | None:
    if header is None:
        return None
    if not header.isascii() or not header.isdigit() or len(header) > 18:
        raise V2Error(f"expected Inference-Header-Content-Length as a number but got {header[:32]!r}")
    return int(header)


async def _asked(request: Request, method: str, message: Any, answer: Any, part: str | None = None) -> Response:
    """The answer to a message that needs no engine, as JSON; `part` is the field that HTTP answers alone."""
    try:
        raw = await read_only(state_of(request), method, message.SerializeToString())
    except (UpstreamError, V2Error) as error:
        return _error(error)
    values = write_message(answer.FromString(raw))
    return Response(json.dumps(values if part is None else values[part]), media_type="application/json")


def _error(error: Exception) -> Response:
    """An error as v2 clients read it: JSON with a member `error`."""
    headers: Mapping[str, str] = {}
    match error:
        case Problem():
            status, headers = KINDS[error.kind][0], error.headers
        case RefusedError():
            status, headers = 503, {"Retry-After": str(error.retry_after_s)}
        case DeadlineError():
            status = 504
        case V2Error() | UpstreamError():
            status = _STATUSES.get(error.code, 500)
        case _:
            raise error
    text = upstream_text(error) if isinstance(error, UpstreamError) else str(error)
    return Response(json.dumps({"error": text}), status, dict(headers), "application/json")
