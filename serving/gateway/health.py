"""Whether the process lives, and whether the model answers."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving.gateway.problems import Problem
from serving.gateway.state import state_of
from serving.supervisor.status import read_status

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the gateway lives")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Whether the model answers")
async def readyz(request: Request) -> Response:
    state = state_of(request)
    if not state.probe():
        raise Problem("unavailable", "[readyz] expected a model that answers but the server is stopping; ask another")
    status = read_status(state.settings.status_fd)
    if not status.ready:
        raise Problem(
            "unavailable", f"[readyz] expected a model that answers but got none ({status.reason}); try again later"
        )
    if not await state.upstream.ready():
        raise Problem("unavailable", "[readyz] expected ready models but got none; try again later")
    return Response('{"status":"ready"}', media_type="application/json")
