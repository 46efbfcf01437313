"""What the v2 doors tell about the models: metadata, configuration and statistics, to read only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2 as pb

from serving.triton.announcement import ADMIN_HEADER

if TYPE_CHECKING:
    from serving.gateway.state import State

ASKING = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
ADMIN = ("ModelConfig", "ModelStatistics", "RepositoryIndex")
"""Triton restricts these; the gateway asks with the secret, and none of them changes anything."""

_OFFERED = ("binary_tensor_data", "parameters", "statistics", "model_configuration")


async def read_only(state: State, method: str, request: bytes) -> bytes:
    """The answer of a method of `ASKING` or `ADMIN`, without what a stranger need not know. Raises UpstreamError."""
    if method == "ServerReady" and not state.probe():
        return bytes(pb.ServerReadyResponse(ready=False).SerializeToString())
    metadata = ((f"triton-grpc-protocol-{ADMIN_HEADER}", state.settings.admin_secret),) if method in ADMIN else ()
    answer = await state.upstream.call(method, request, metadata)
    match method:
        case "ServerMetadata":
            return _without_shut_extensions(answer)
        case "ModelConfig":
            return _without_paths(answer)
    return answer


def _without_shut_extensions(answer: bytes) -> bytes:
    message: Any = pb.ServerMetadataResponse.FromString(answer)
    offered = [name for name in message.extensions if name in _OFFERED]
    del message.extensions[:]
    message.extensions.extend(offered)
    return bytes(message.SerializeToString())


def _without_paths(answer: bytes) -> bytes:
    """The configuration without the parameters, which name paths of this machine."""
    message: Any = pb.ModelConfigResponse.FromString(answer)
    message.config.parameters.clear()
    return bytes(message.SerializeToString())
