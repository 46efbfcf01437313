"""The way to Triton: one gRPC channel on a private port, and the messages of the KServe protocol version 2."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from serving.protocol import MODELS, ModelInfo, read_info

SERVICE = "inference.GRPCInferenceService"
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_CHECK_S = 5.0  # longest time for an answer about readiness

Tensors = Mapping[str, npt.NDArray[Any]]


class UpstreamError(RuntimeError):
    """An error that Triton or a model answered, in its own words.

    Attributes:
        code: the status of gRPC.
    """

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code


class Answer:
    """The tensors of an answer. `as_numpy` makes it readable for `serving.protocol`."""

    def __init__(self, message: Any) -> None:
        self._tensors = {
            output.name: _array(output, raw)
            for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
        }

    def as_numpy(self, name: str) -> npt.NDArray[Any]:
        """An output by its name; a view of the message."""
        return self._tensors[name]


class Upstream:
    """Triton behind the gateway. Make it on a running event loop; call `close` at the end.

    Args:
        address: Triton's gRPC port, `HOST:PORT`.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")  # bytes in, bytes out
        self._sent: set[asyncio.Task[bytes]] = set()
        self._info: ModelInfo | None = None

    async def close(self) -> None:
        """Wait for what was sent, then end the connection."""
        await asyncio.gather(*self._sent, return_exceptions=True)
        await self._channel.close()

    async def call(self, method: str, request: bytes) -> bytes:
        """Pass on a message to a method of Triton's service that needs no engine. Raises UpstreamError."""
        try:
            return bytes(await self._channel.unary_unary(f"/{SERVICE}/{method}")(request))
        except grpc.aio.AioRpcError as error:
            raise UpstreamError(error.details() or "", error.code()) from None

    async def forward(self, request: bytes, *, maps: int, client: str, deadline_s: float | None = None) -> bytes:
        """Pass on a ModelInferRequest of `maps` label maps, through the queue. Returns a ModelInferResponse.

        `client` is a key or an address, between which the queue is fair. A caller that leaves gives up its place in
        the queue; what was sent to Triton is never cancelled, since Triton 24.10 may crash of that (server#7368).
        Raises UpstreamError.
        """
        del maps, client, deadline_s
        task = asyncio.ensure_future(self._send(request))
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)
        return await asyncio.shield(task)

    async def infer(
        self,
        model: str,
        tensors: Tensors,
        parameters: Mapping[str, bool | int | str] | None = None,
        deadline_s: float | None = None,
        *,
        client: str = "",
        outputs: Sequence[str] = (),
    ) -> Answer:
        """Ask a model. `outputs` are the tensors to answer; none for all of an image. Raises UpstreamError."""
        request = write_request(model, tensors, parameters or {}, outputs)
        maps = len(next(iter(tensors.values())))
        answer = await self.forward(request.SerializeToString(), maps=maps, client=client, deadline_s=deadline_s)
        return Answer(pb.ModelInferResponse.FromString(answer))

    async def ready(self) -> bool:
        """True where Triton answers and all models take requests."""
        try:
            async with asyncio.timeout(_CHECK_S):
                answers = [
                    await self.call("ModelReady", pb.ModelReadyRequest(name=model).SerializeToString())
                    for model in MODELS
                ]
        except (UpstreamError, TimeoutError):
            return False
        return all(pb.ModelReadyResponse.FromString(answer).ready for answer in answers)

    async def info(self) -> ModelInfo:
        """What the model is, and its limits. Raises UpstreamError."""
        unread = {"label_map": np.zeros((1, 1), np.uint8)}  # Triton wants every input, also where no image is drawn
        request = write_request("spade_image", unread, {}, ["info"])
        answer = await self._send(request.SerializeToString())
        return read_info(Answer(pb.ModelInferResponse.FromString(answer)))

    async def _send(self, request: bytes) -> bytes:
        try:
            return bytes(await self._infer(request))
        except grpc.aio.AioRpcError as error:
            raise UpstreamError(error.details() or "", error.code()) from None


def write_request(
    model: str, tensors: Tensors, parameters: Mapping[str, bool | int | str], outputs: Sequence[str]
) -> Any:
    """A ModelInferRequest."""
    request = pb.ModelInferRequest(model_name=model)
    for name, tensor in tensors.items():
        request.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        request.raw_input_contents.append(np.ascontiguousarray(tensor).tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        match value:
            case bool():
                request.parameters[name].bool_param = value
            case int():
                request.parameters[name].int64_param = value
            case _:
                request.parameters[name].string_param = value
    return request


def _array(output: Any, raw: bytes) -> npt.NDArray[Any]:
    return np.frombuffer(raw, triton_to_np_dtype(output.datatype)).reshape(tuple(output.shape))
