"""The metrics door: one Prometheus scrape of everything."""

from __future__ import annotations

import asyncio
import urllib.request

from fastapi import FastAPI, Response

from serving.gateway import problems
from serving.gateway.state import State
from serving.supervisor.status import read_status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TIMEOUT_S = 5.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our own Triton is asked without a proxy


def create_app(state: State) -> FastAPI:
    """The application of the metrics port."""
    app = FastAPI(title="SPADE Serve metrics", docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await merged(state), media_type=CONTENT_TYPE)

    return app


async def merged(state: State) -> bytes:
    """The supervisor's counters, and the scrape of Triton and its models, where Triton answers."""
    ours = read_status(state.settings.status_fd).metrics().encode()
    try:
        return ours + await asyncio.to_thread(
            _fetch, state.settings.triton_metrics
        )  # rare: a thread costs nothing here
    except OSError:
        return ours  # Triton is being replaced, which `spade_up` says


def _fetch(url: str) -> bytes:
    with _OPENER.open(url, timeout=_TIMEOUT_S) as answer:
        return bytes(answer.read())
