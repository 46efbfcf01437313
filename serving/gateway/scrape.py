"""The metrics door: one Prometheus scrape of everything."""

from __future__ import annotations

import asyncio
import re

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder

from serving.gateway import problems
from serving.gateway.openapi import PROBLEMS
from serving.gateway.state import State, state_of
from serving.triton.ask import ask

router = APIRouter(tags=["health"])

_TIMEOUT_S = 5.0
_WHOLE_BOUND = re.compile(r'(?<=le=")(\d+)(?=")')
_KIND = re.compile(r"^# (HELP|TYPE) (\S+) ?(.*)$", re.MULTILINE)
_COUNTER = re.compile(r"^# TYPE (\S+) counter$", re.MULTILINE)
_EOF = "# EOF\n"


def create_app(state: State) -> FastAPI:
    """The application of the metrics port."""
    app = FastAPI(title="SPADE Serve metrics", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.gateway = state
    problems.install(app)
    app.include_router(router)
    return app


@router.get("/metrics", summary="The metrics of everything", response_class=PlainTextResponse, responses=PROBLEMS)
async def metrics(request: Request) -> Response:
    """Prometheus' text, or OpenMetrics with exemplars for a client that accepts it."""
    state = state_of(request)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    ours = encode(state.metrics.registry).decode()
    try:
        # rare: a thread costs nothing here
        triton = with_float_bounds(await asyncio.to_thread(ask, state.settings.triton_metrics, _TIMEOUT_S))
    except OSError:
        triton = ""  # Triton is being replaced, which `spade_up` says
    if content_type.startswith("application/openmetrics-text"):
        text = ours.removesuffix(_EOF) + as_openmetrics(triton) + _EOF
    else:
        text = ours + triton
    return Response(text, media_type=content_type)


def with_float_bounds(text: str) -> str:
    """Triton's text with `le="1.0"` for `le="1"`, as in OpenMetrics: a bucket has one name in both formats."""
    return _WHOLE_BOUND.sub(r"\1.0", text)


def as_openmetrics(text: str) -> str:
    """Triton's text in OpenMetrics, with the same names of all samples.

    A family of counters is named without `_total`. Some of Triton's counters have no `_total`, which OpenMetrics
    demands of counters: their type is unknown there.
    """
    counters = set(_COUNTER.findall(text))

    def head(match: re.Match[str]) -> str:
        what, name, rest = match.groups()
        if name in counters:
            rest = "unknown" if what == "TYPE" and not name.endswith("_total") else rest
            name = name.removesuffix("_total")
        return f"# {what} {name} {rest}"

    return _KIND.sub(head, text)
