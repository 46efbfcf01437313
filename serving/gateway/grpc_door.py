"""The gRPC door: the KServe service version 2. Requests to infer are checked here, and passed on to Triton as bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.away import begin
from serving.gateway.callers import Caller, key_in
from serving.gateway.problems import Problem
from serving.gateway.queue import DeadlineError, RefusedError
from serving.gateway.state import State
from serving.gateway.upstream import SERVICE, Metadata, UpstreamError
from serving.gateway.v2_checks import V2Error, check_infer, deadline_s
from serving.gateway.v2_read import ADMIN, ASKING, read_only
from serving.gateway.v2_text import upstream_text
from serving.traces import TRACEPARENT, Attributes

_SHUT = (
    "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "RepositoryModelLoad", "RepositoryModelUnload",
    "TraceSetting", "LogSettings",
)  # fmt: skip
_PUBLIC = ("ServerLive", "ServerReady", "ModelReady")  # for probes
# Of what a caller's key and limit refuse.
_CODES = {
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "too-many-requests": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_FAILED = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_PING_S = 60  # the most frequent pings that are no fault of the client
_MOST_OF_STREAM = 64  # requests of one stream that are under way

_Handler = Callable[[bytes, Any], Awaitable[bytes]]


class _Told(Exception):
    """An error as the client is told."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


async def start(state: State) -> Any:
    """Listen on the address of the settings. Returns the server, whose `stop` ends it."""
    server = grpc.aio.server(options=_options(state))
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(_asking(state, name)) for name in (*ASKING, *ADMIN)
    }
    handlers |= {name: grpc.unary_unary_rpc_method_handler(_shut(name)) for name in _SHUT}
    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(_infer(state))
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(_stream(state))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address, doors = state.settings.grpc_address, state.settings.doors
    if doors.tls_cert is not None and doors.tls_key is not None:
        chain, key = Path(doors.tls_cert).read_bytes(), Path(doors.tls_key).read_bytes()
        server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
    else:
        server.add_insecure_port(address)
    await server.start()
    return server


def _options(state: State) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", state.settings.doors.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_S * 1000),
    ]


def _asking(state: State, method: str) -> _Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        try:
            if method not in _PUBLIC:
                _admitted(state, context)
            return await read_only(state, method, request)
        except _Told as error:
            await context.abort(error.code, str(error))
            raise
        except UpstreamError as error:
            await context.abort(error.code, upstream_text(error))
            raise

    return answer


def _shut(method: str) -> _Handler:
    async def answer(_request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"[v2] {method} is shut here")
        raise AssertionError("unreachable: abort raises")

    return answer


def _infer(state: State) -> _Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        try:
            caller = _admitted(state, context)
            return await _drawn(state, request, caller, context.time_remaining(), _headers(context))
        except _Told as error:
            await context.abort(error.code, str(error))
            raise

    return answer


async def _drawn(
    state: State, request: bytes, caller: Caller, call_s: float | None, headers: Mapping[str, str]
) -> bytes:
    """The answer to a request to infer, which is counted and traced. Raises _Told."""
    began, away, status = time.perf_counter(), begin(), grpc.StatusCode.CANCELLED
    span = state.tracer.begin("ModelInfer", headers.get(TRACEPARENT))
    try:
        answer = await _answered(state, request, caller, call_s, ((TRACEPARENT, span.traceparent),))
        status = grpc.StatusCode.OK
        return answer
    except _Told as error:
        status = error.code
        raise
    finally:
        code = int(status.value[0])
        told: Attributes = {"rpc.system": "grpc", "rpc.method": "ModelInfer", "rpc.grpc.status_code": code}
        span.end(told, failed=status in _FAILED)
        seconds = time.perf_counter() - began
        state.metrics.count("grpc", "ModelInfer", status.name, seconds, away.seconds, span.traceparent)


async def _answered(state: State, request: bytes, caller: Caller, call_s: float | None, metadata: Metadata) -> bytes:
    try:
        message = pb.ModelInferRequest.FromString(request)
        maps = check_infer(message, await state.v2.spec(message.model_name))
        caller.take(maps)
        limit_s = deadline_s(message, call_s)
        return await state.upstream.forward(
            request, maps=maps, client=caller.queue, deadline_s=limit_s, metadata=metadata
        )
    except Problem as problem:
        raise _Told(_CODES[problem.kind], problem.detail) from None
    except DecodeError:
        raise _Told(grpc.StatusCode.INVALID_ARGUMENT, "[v2] expected a ModelInferRequest but got other bytes") from None
    except V2Error as error:
        raise _Told(error.code, str(error)) from None
    except UpstreamError as error:
        raise _Told(error.code, upstream_text(error)) from None
    except RefusedError as error:
        raise _Told(grpc.StatusCode.UNAVAILABLE, str(error)) from None
    except DeadlineError as error:
        raise _Told(grpc.StatusCode.DEADLINE_EXCEEDED, str(error)) from None


def _stream(state: State) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
    async def answers(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Each answer as it is ready; the client tells them apart by their ids."""
        try:
            caller, headers = _admitted(state, context), _headers(context)
        except _Told as error:
            await context.abort(error.code, str(error))
            raise
        ready: asyncio.Queue[bytes | None] = asyncio.Queue()
        room = asyncio.Semaphore(_MOST_OF_STREAM)

        async def one(request: bytes) -> None:
            response = pb.ModelStreamInferResponse()
            try:
                response.infer_response.ParseFromString(await _drawn(state, request, caller, None, headers))
            except _Told as error:
                response.error_message = str(error)
                response.infer_response.id = _id_of(request)
            finally:
                room.release()
            ready.put_nowait(response.SerializeToString())

        async def read() -> None:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    await room.acquire()
                    group.create_task(one(request))
            ready.put_nowait(None)

        reading = asyncio.ensure_future(read())
        try:
            while (response := await ready.get()) is not None:
                yield response
        finally:
            reading.cancel()  # the client has gone: what waits for its turn is dropped

    return answers


def _admitted(state: State, context: Any) -> Caller:
    """Who calls, by the metadata `authorization: Bearer KEY`. Raises _Told."""
    host, _, port = context.peer().rpartition(":")
    try:
        return state.callers.admit(key_in(_headers(context)), host, port)
    except Problem as problem:
        raise _Told(_CODES[problem.kind], problem.detail) from None


def _headers(context: Any) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def _id_of(request: bytes) -> str:
    try:
        return str(pb.ModelInferRequest.FromString(request).id)
    except DecodeError:
        return ""
