"""The gRPC door: the KServe service version 2. Requests to infer are checked here, and passed on to Triton as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.queue import DeadlineError, RefusedError
from serving.gateway.state import State
from serving.gateway.upstream import SERVICE, UpstreamError
from serving.gateway.v2_checks import V2Error, check_infer
from serving.gateway.v2_read import ADMIN, ASKING, read_only
from serving.gateway.v2_text import upstream_text

_SHUT = (
    "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "RepositoryModelLoad", "RepositoryModelUnload",
    "TraceSetting", "LogSettings",
)  # fmt: skip
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
    server.add_insecure_port(state.settings.grpc_address)
    await server.start()
    return server


def _options(state: State) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", state.settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_S * 1000),
    ]


def _asking(state: State, method: str) -> _Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        try:
            return await read_only(state, method, request)
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
            return await _drawn(state, request, context.peer(), context.time_remaining())
        except _Told as error:
            await context.abort(error.code, str(error))
            raise

    return answer


async def _drawn(state: State, request: bytes, client: str, deadline_s: float | None) -> bytes:
    """The answer to a request to infer. Raises _Told."""
    try:
        message = pb.ModelInferRequest.FromString(request)
        maps = check_infer(message, await state.v2.spec(message.model_name))
        return await state.upstream.forward(request, maps=maps, client=client, deadline_s=deadline_s)
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
        ready: asyncio.Queue[bytes | None] = asyncio.Queue()
        room = asyncio.Semaphore(_MOST_OF_STREAM)

        async def one(request: bytes) -> None:
            response = pb.ModelStreamInferResponse()
            try:
                response.infer_response.ParseFromString(await _drawn(state, request, context.peer(), None))
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


def _id_of(request: bytes) -> str:
    try:
        return str(pb.ModelInferRequest.FromString(request).id)
    except DecodeError:
        return ""
