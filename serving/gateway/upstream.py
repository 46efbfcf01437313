"""The way to Triton: one gRPC channel on a private port, and the messages of the KServe protocol version 2."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from serving.gateway.away import sent_away
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.queue import DeadlineError, FairQueue
from serving.protocol import MODELS, STOPPING, ModelInfo, read_info
from serving.traces import TRACEPARENT, Tracer
from serving.triton.identity import Identity, read_identity
from serving.triton.known_faults import may_cancel

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A restarted Triton listens on the same port: find it at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_CHECK_S = 5.0  # longest time for an answer about readiness
_POLL_S = 0.1

_GONE = grpc.StatusCode.UNAVAILABLE  # of a server that cannot answer now, where it or another one may later

# What gRPC and Triton say of a process that ended, or was about to, while it had a request.
_DEAD_PROCESS = {
    _GONE: (
        "Socket closed",
        "Connection reset",
        "onnection refused",
        "failed to connect",
        "recvmsg",
        *STOPPING,
    ),
    grpc.StatusCode.INTERNAL: ("Stub process", "stub process"),
}

Tensors = Mapping[str, npt.NDArray[Any]]
Parameters = Mapping[str, bool | int | str]
Metadata = Sequence[tuple[str, str]]


class UpstreamError(RuntimeError):
    """An error that Triton or a model answered, in its own words.

    Attributes:
        code: the status of gRPC.
    """

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code

    @property
    def process_died(self) -> bool:
        """True where a process ended, or was about to, before it answered: another process can answer."""
        texts = _DEAD_PROCESS.get(self.code, ())
        return any(text in str(self) for text in texts)


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
        queue: which requests wait, and for how long.
        metrics: count what waits, and how it ends.
        tracer: where spans go.
        recovery_s: longest wait for a model process that died, before its request is given up.
    """

    def __init__(
        self, address: str, queue: FairQueue, metrics: GatewayMetrics, tracer: Tracer, recovery_s: float = 120.0
    ) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")  # bytes in, bytes out
        self._sent: set[asyncio.Task[bytes]] = set()
        self._recovery_s = recovery_s
        self.queue, self.metrics, self.tracer = queue, metrics, tracer
        self.answered = float("-inf")  # time.monotonic of the last answer of a model
        self._cancels = False  # calls that were sent
        self._supervisor = os.getppid()

    async def close(self) -> None:
        """Wait for what was sent, then end the connection."""
        await asyncio.gather(*self._sent, return_exceptions=True)
        await self._channel.close()

    async def learn_version(self) -> None:
        """Ask Triton for its version, which decides whether calls are cancelled, and log it. Raises UpstreamError."""
        answer = await self.call("ServerMetadata", pb.ServerMetadataRequest().SerializeToString())
        version: str = pb.ServerMetadataResponse.FromString(answer).version
        self._cancels = may_cancel(version)
        what = "cancelled when its client leaves" if self._cancels else "never cancelled, which could end this version"
        log.info("Triton %s: a call that was sent is %s", version, what)

    async def call(self, method: str, request: bytes, metadata: Metadata = ()) -> bytes:
        """Pass on a message to a method of Triton's service that needs no engine. Raises UpstreamError."""
        try:
            return bytes(await self._channel.unary_unary(f"/{SERVICE}/{method}")(request, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            raise _told(error) from None

    async def forward(
        self, request: bytes, *, maps: int, client: str, deadline_s: float | None = None, metadata: Metadata = ()
    ) -> bytes:
        """Pass on a ModelInferRequest of `maps` label maps, through the queue. Returns a ModelInferResponse.

        `client` is a key or an address, between which the queue is fair. `metadata` goes with the call. A caller that
        leaves gives up its place in the queue; what was sent is cancelled only where this Triton's version survives
        that (`learn_version`). Raises UpstreamError, RefusedError and DeadlineError.
        """
        with self.metrics.draws(deadline_s), sent_away():
            return await self._forward(request, maps, client, deadline_s, metadata)

    async def _forward(
        self, request: bytes, maps: int, client: str, deadline_s: float | None, metadata: Metadata
    ) -> bytes:
        began, began_ns = time.monotonic(), time.time_ns()
        await self.queue.wait(client, maps, deadline_s)
        traceparent = dict(metadata).get(TRACEPARENT)
        self.metrics.turn(time.monotonic() - began, traceparent)
        if traceparent is not None:
            self.tracer.record("wait for a turn", traceparent, began_ns, time.time_ns())
        task = asyncio.ensure_future(self._draw(request, maps, metadata))
        self._sent.add(task)
        task.add_done_callback(self._end)
        try:
            async with asyncio.timeout(None if deadline_s is None else max(0.0, began + deadline_s - time.monotonic())):
                return await asyncio.shield(task)
        except TimeoutError:
            raise DeadlineError(
                f"[upstream] expected an answer within {deadline_s:.3g} s but got none; give the request more time"
            ) from None
        finally:
            if self._cancels:  # nothing happens to a task that is done
                task.cancel()

    async def infer(
        self,
        model: str,
        tensors: Tensors,
        parameters: Parameters | None = None,
        deadline_s: float | None = None,
        *,
        client: str = "",
        outputs: Sequence[str] = (),
        metadata: Metadata = (),
    ) -> Answer:
        """Ask a model. `outputs` are the tensors to answer; none for all of an image. Raises what `forward` raises."""
        request = write_request(model, tensors, parameters or {}, outputs).SerializeToString()
        maps = len(next(iter(tensors.values())))
        answer = await self.forward(request, maps=maps, client=client, deadline_s=deadline_s, metadata=metadata)
        return Answer(pb.ModelInferResponse.FromString(answer))

    async def ask(self, model: str, tensors: Tensors, outputs: Sequence[str], *, again: bool = False) -> Answer:
        """Ask for outputs that need no engine, such as `info`, past the queue. Raises UpstreamError.

        `again`: where the model's process dies meanwhile, wait for the next one, and ask it.
        """
        request = write_request(model, tensors, {}, outputs).SerializeToString()
        answer = await (self._send_twice(request) if again else self._send(request))
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
        # Triton wants every input, also where no image is drawn.
        return read_info(await self.ask("spade_image", {"label_map": np.zeros((1, 1), np.uint8)}, ["info"]))

    async def identity(self) -> Identity | None:
        """What draws images now; None for an engine file on Triton's own backend. Raises UpstreamError."""
        try:
            return read_identity(await self.ask("spade", {"seed": np.zeros((1, 1), np.int64)}, ["identity"]))
        except UpstreamError as error:
            if "'identity'" in str(error):  # Triton's words for an output that a model does not have
                return None
            raise

    async def _draw(self, request: bytes, maps: int, metadata: Metadata) -> bytes:
        drawn = False
        try:
            answer = await self._send_twice(request, metadata)
            drawn = True
            return answer
        finally:
            self.queue.done(maps, drawn)

    async def _send_twice(self, request: bytes, metadata: Metadata = ()) -> bytes:
        """Send, and where the model's process died meanwhile, send once more to the next one."""
        try:
            return await self._send(request, metadata)
        except UpstreamError as error:
            if not error.process_died:
                raise
            log.warning("a model process died; its request is sent again: %s", error)
            await self._recover(error)
        try:
            return await self._send(request, metadata)
        except UpstreamError as error:
            raise UpstreamError(str(error), _GONE if error.process_died else error.code) from None

    async def _recover(self, error: UpstreamError) -> None:
        end = time.monotonic() + self._recovery_s
        await asyncio.sleep(_POLL_S)
        while not await self.ready():
            if os.getppid() != self._supervisor:  # nothing starts Triton again
                raise UpstreamError(
                    "[upstream] expected a model but the server is stopping; ask another server, or try again later",
                    _GONE,
                ) from error
            if time.monotonic() > end:
                raise UpstreamError(str(error), _GONE) from error
            await asyncio.sleep(_POLL_S)

    async def _send(self, request: bytes, metadata: Metadata = ()) -> bytes:
        try:
            answer = bytes(await self._infer(request, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            raise _told(error) from None
        self.answered = time.monotonic()
        return answer

    def _end(self, task: asyncio.Task[bytes]) -> None:
        self._sent.discard(task)
        if not task.cancelled():
            task.exception()  # read, since its caller may have gone


def _told(error: grpc.aio.AioRpcError) -> UpstreamError:
    """The error of a call. A Triton that stops answers with one code or another; here it is always UNAVAILABLE."""
    text = error.details() or ""
    return UpstreamError(text, _GONE if any(stopping in text for stopping in STOPPING) else error.code())


def write_request(model: str, tensors: Tensors, parameters: Parameters, outputs: Sequence[str]) -> Any:
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
