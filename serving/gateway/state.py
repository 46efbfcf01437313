"""What all routes share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import HTTPConnection

from serving.gateway.callers import Caller, Callers
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.photo_styles import PhotoStyles
from serving.gateway.settings import Settings
from serving.gateway.upstream import Metadata, Upstream, UpstreamError
from serving.gateway.v2_models import Models
from serving.protocol import ModelInfo
from serving.traces import TRACEPARENT, Tracer
from serving.triton.identity import Identity

_FRESH_S = 1.0


@dataclass(frozen=True)
class Model:
    """What the server serves now. `identity` is None for an engine file on Triton's own backend."""

    info: ModelInfo
    identity: Identity | None

    @property
    def weights(self) -> str:
        """The name of the weights; empty where it is not known."""
        return "" if self.identity is None else self.identity.weights


class State:
    """What all routes share: `request.app.state.gateway`.

    Attributes:
        settings: of this process.
        upstream: the way to Triton.
        callers: who may call.
        tracer: where spans go.
        metrics: of the gateway itself.
        photos: the styles of photos.
        v2: what the models take, for the checks of the v2 doors.
        probed: time.monotonic of the last question whether the server is ready.
        stopping: it is not, while the doors are still open.
    """

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self.settings = settings
        self.upstream = upstream
        self.callers = Callers(settings.doors)
        self.tracer: Tracer = upstream.tracer
        self._model: Model | None = None
        self._asked = float("-inf")
        self.metrics: GatewayMetrics = upstream.metrics
        self.photos = PhotoStyles(upstream)
        self.probed = float("-inf")
        self.stopping = False
        self.v2 = Models(upstream, self._info, settings.doors.max_body_bytes)

    def probe(self) -> bool:
        """Somebody asks whether the server is ready. False once it stops, while the doors are still open."""
        self.probed = time.monotonic()
        return not self.stopping

    async def model(self, fresh: bool = False) -> Model:
        """What is served; at most a second old, or asked for now where `fresh`; while Triton is replaced, what was.

        Raises UpstreamError.
        """
        if self._model is None or fresh or time.monotonic() - self._asked > _FRESH_S:
            asked = time.monotonic()
            try:
                found = Model(await self.upstream.info(), await self.upstream.identity())
                if self._model is None:
                    await self.upstream.learn_version()
            except UpstreamError as error:
                # A request that comes while Triton is replaced is checked by what was known, then waits for the next.
                if self._model is None or not error.process_died:
                    raise
                return self._model
            self._model, self._asked = found, asked
            # The batch that is drawn, and the next one.
            self.upstream.queue.most_in_flight = 2 * found.info.max_batch
        return self._model

    @property
    def last_model(self) -> Model | None:
        """What was served when it was last asked for."""
        return self._model

    async def _info(self) -> ModelInfo:
        return (await self.model()).info


def state_of(request: Request) -> State:
    """The state of the app that a request came to."""
    found = request.app.state.gateway
    assert isinstance(found, State)
    return found


def caller_of(request: HTTPConnection) -> Caller:
    """Who asks, as the entrance found out."""
    found = request.scope["state"]["caller"]
    assert isinstance(found, Caller)
    return found


def trace_of(request: Request) -> Metadata:
    """The trace of a request, for the call to Triton."""
    return ((TRACEPARENT, request.scope["state"][TRACEPARENT]),)
