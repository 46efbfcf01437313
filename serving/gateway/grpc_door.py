"""The gRPC door: the KServe service version 2, passed on to Triton as bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.state import State
from serving.gateway.upstream import SERVICE, UpstreamError

_ASKING = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
_OPTIONS = (("grpc.max_receive_message_length", 256 << 20), ("grpc.max_send_message_length", -1))


async def start(state: State) -> Any:
    """Listen on the address of the settings. Returns the server, whose `stop` ends it."""
    server = grpc.aio.server(options=_OPTIONS)
    handlers = {name: grpc.unary_unary_rpc_method_handler(_asking(state, name)) for name in _ASKING}
    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(_infer(state))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(state.settings.grpc_address)
    await server.start()
    return server


_Handler = Callable[[bytes, Any], Awaitable[bytes]]


def _asking(state: State, method: str) -> _Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        try:
            return await state.upstream.call(method, request)
        except UpstreamError as error:
            await context.abort(error.code, str(error))
            raise

    return answer


def _infer(state: State) -> _Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        message = pb.ModelInferRequest.FromString(request)
        maps = int(message.inputs[0].shape[0]) if message.inputs and message.inputs[0].shape else 1
        try:
            return await state.upstream.forward(request, maps=maps, client=context.peer())
        except UpstreamError as error:
            await context.abort(error.code, str(error))
            raise

    return answer
