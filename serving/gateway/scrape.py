"""The metrics door: one Prometheus scrape of everything."""

from __future__ import annotations

import asyncio
import urllib.request

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from serving.gateway import problems
from serving.gateway.openapi import PROBLEMS
from serving.gateway.state import State, state_of
from serving.supervisor.status import read_status

router = APIRouter(tags=["health"])

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TIMEOUT_S = 5.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our own Triton is asked without a proxy


def create_app(state: State) -> FastAPI:
    """The application of the metrics port."""
    app = FastAPI(title="SPADE Serve metrics", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.gateway = state
    problems.install(app)
    app.include_router(router)
    return app


@router.get("/metrics", summary="The metrics of everything", response_class=PlainTextResponse, responses=PROBLEMS)
async def metrics(request: Request) -> Response:
    return Response(await merged(state_of(request)), media_type=CONTENT_TYPE)


async def merged(state: State) -> bytes:
    """The counters of supervisor and gateway, and the scrape of Triton and its models, where Triton answers."""
    ours = read_status(state.settings.status_fd).metrics().encode() + state.metrics.scrape()
    try:
        return ours + await asyncio.to_thread(
            _fetch, state.settings.triton_metrics
        )  # rare: a thread costs nothing here
    except OSError:
        return ours  # Triton is being replaced, which `spade_up` says


def _fetch(url: str) -> bytes:
    with _OPENER.open(url, timeout=_TIMEOUT_S) as answer:
        return bytes(answer.read())
