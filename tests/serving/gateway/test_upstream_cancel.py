"""A client that leaves: its call to Triton is cancelled only where that version of Triton survives it (server#7368)."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.metrics import GatewayMetrics
from serving.gateway.queue import DeadlineError, FairQueue
from serving.gateway.upstream import SERVICE, Upstream
from serving.traces import IdsOnly

TENSORS = {"label_map": np.zeros((1, 4), np.uint8)}


class Triton:
    """A server that says it is a Triton of some version, and draws only when it is told to."""

    def __init__(self, version: str) -> None:
        self.began, self.go, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.version = version

    async def __aenter__(self) -> Triton:
        self._server = grpc.aio.server()
        handlers = {
            "ServerMetadata": grpc.unary_unary_rpc_method_handler(self._metadata),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def _metadata(self, _request: bytes, _context: Any) -> bytes:
        return bytes(pb.ServerMetadataResponse(version=self.version).SerializeToString())

    async def _infer(self, _request: bytes, _context: Any) -> bytes:
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return bytes(pb.ModelInferResponse().SerializeToString())


def upstream_of(triton: Triton) -> Upstream:
    queue = FairQueue(1, 8, 30.0)
    metrics = GatewayMetrics(queue, 8, -1)
    return Upstream(f"127.0.0.1:{triton.port}", queue, metrics, IdsOnly())


@pytest.mark.parametrize(
    ("version", "cancels", "leaves"),
    [
        ("2.51.0", False, "gone"),
        ("2.53.0", True, "gone"),
        ("nobody knows", False, "gone"),
        ("2.51.0", False, "deadline"),
        ("2.53.0", True, "deadline"),
    ],
)
def test_what_was_sent_is_cancelled_where_the_version_survives_it(
    version: str, cancels: bool, leaves: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with Triton(version) as triton:
            upstream = upstream_of(triton)
            await upstream.learn_version()
            limit_s = None if leaves == "gone" else 3.0
            call = asyncio.ensure_future(upstream.infer("spade_image", TENSORS, deadline_s=limit_s))
            await asyncio.wait_for(triton.began.wait(), 30)
            if leaves == "gone":
                call.cancel()
            with pytest.raises((asyncio.CancelledError, DeadlineError)):
                await call
            if cancels:
                await asyncio.wait_for(triton.cancelled.wait(), 30)
            else:
                assert upstream.queue.in_flight == 1  # it is drawn to its end
                triton.go.set()
            await upstream.close()
            assert upstream.queue.in_flight == 0
            assert triton.cancelled.is_set() == cancels

    with caplog.at_level("INFO", "serving.gateway"):
        asyncio.run(check())
    assert [record.message for record in caplog.records if version in record.message] == [
        f"Triton {version}: a call that was sent is "
        + ("cancelled when its client leaves" if cancels else "never cancelled, which could end this version")
    ]


def test_a_version_that_is_not_asked_for_is_not_cancelled() -> None:
    async def check() -> None:
        async with Triton("2.53.0") as triton:
            upstream = upstream_of(triton)
            call = asyncio.ensure_future(upstream.infer("spade_image", TENSORS))
            await triton.began.wait()
            call.cancel()
            triton.go.set()
            await upstream.close()
            assert not triton.cancelled.is_set()

    asyncio.run(check())
