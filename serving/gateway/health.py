"""Whether the process lives, and whether the model answers."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving.gateway.problems import Problem
from serving.gateway.state import state_of

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the gateway lives")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Whether the model answers")
async def readyz(request: Request) -> Response:
    if not await state_of(request).upstream.ready():
        raise Problem("unavailable", "[readyz] expected ready models but got none; try again later")
    return Response('{"status":"ready"}', media_type="application/json")
