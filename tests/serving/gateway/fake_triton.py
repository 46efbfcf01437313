"""A Triton that draws only when it is told to: the gateway's queue, limits and time-outs can be tested without luck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.metrics import GatewayMetrics
from serving.gateway.queue import FairQueue
from serving.gateway.upstream import SERVICE, Upstream
from serving.protocol import ModelInfo, RequestTimings
from serving.traces import IdsOnly
from serving.triton.identity import Identity

INFO = ModelInfo("demo", 16, False, 64, 64, False, True, 1, 1 << 20)
IMAGE = b"an image file"


class Triton:
    """Speaks KServe's gRPC service on a port of this machine. Use as an async context manager.

    Attributes:
        began: set while a request to draw has come.
        go: set it, and what has come is answered.
        cancelled: set once a call was cancelled.
        drawn: requests to draw that have come.
        faults: codes and texts that the next requests to draw get in place of an image.
        ready: whether its models say that they are.
    """

    def __init__(self, version: str = "2.51.0") -> None:
        self.began, self.go, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.version, self.drawn, self.ready = version, 0, True
        self.faults: list[tuple[grpc.StatusCode, str]] = []

    async def __aenter__(self) -> Triton:
        self._server = grpc.aio.server()
        answers: dict[str, Callable[[bytes, Any], Any]] = {
            "ServerMetadata": self._metadata, "ModelReady": self._ready, "ModelInfer": self._infer
        }  # fmt: skip
        handlers = {name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in answers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def _metadata(self, _request: bytes, _context: Any) -> bytes:
        return bytes(pb.ServerMetadataResponse(version=self.version).SerializeToString())

    async def _ready(self, _request: bytes, _context: Any) -> bytes:
        return bytes(pb.ModelReadyResponse(ready=self.ready).SerializeToString())

    async def _infer(self, request: bytes, context: Any) -> bytes:
        asked = [output.name for output in pb.ModelInferRequest.FromString(request).outputs]
        if asked == ["info"]:
            return _answer(info=INFO.rows(1))
        if asked == ["identity"]:
            return _answer(identity=_identity().rows(1))
        if self.faults:
            await context.abort(*self.faults.pop(0))
        self.drawn += 1
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return _answer(
            image=np.frombuffer(IMAGE, np.uint8)[None], image_bytes=np.array([[len(IMAGE)]], np.int32),
            timings=RequestTimings(0.001, 0.002, 0.003, 0.004, 0.01, 1.0, 0.5).rows(1), identity=_identity().rows(1),
        )  # fmt: skip

    def upstream(self, waiting: int = 8) -> Upstream:
        """The gateway's way to it, for one map at a time and `waiting` more."""
        queue = FairQueue(1, waiting, 30.0)
        return Upstream(f"127.0.0.1:{self.port}", queue, GatewayMetrics(queue, waiting, -1), IdsOnly())


def _identity() -> Identity:
    return Identity("demo", "cpu", "fp32", "avx2", "seeded", exact=True)


def _answer(**tensors: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    kinds = {"uint8": "UINT8", "int32": "INT32", "float32": "FP32"}
    answer = pb.ModelInferResponse()
    for name, tensor in tensors.items():
        answer.outputs.add(name=name, datatype=kinds[tensor.dtype.name], shape=tensor.shape)
        answer.raw_output_contents.append(tensor.tobytes())
    return bytes(answer.SerializeToString())
