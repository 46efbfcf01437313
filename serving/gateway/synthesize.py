"""`POST /v1/synthesize`: label maps in, images out."""

from __future__ import annotations

import grpc
import numpy as np
from fastapi import APIRouter, Request, Response

from serving.gateway.problems import Problem
from serving.gateway.state import client_of, state_of
from serving.gateway.upstream import UpstreamError

router = APIRouter(tags=["images"])

_KINDS = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid-request",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
}


@router.post("/v1/synthesize", summary="Draw the image of a label map")
async def synthesize(request: Request) -> Response:
    state = state_of(request)
    body = await request.body()
    if not body:
        raise Problem("invalid-request", "[synthesize] expected a PNG label map as the body but got nothing")
    try:
        answer = await state.upstream.infer(
            "spade_image", {"label_map": np.frombuffer(body, np.uint8)[None]}, client=client_of(request)
        )
    except UpstreamError as error:
        raise Problem(_KINDS.get(error.code, "internal"), str(error)) from None
    return Response(answer.as_numpy("image")[0].tobytes(), media_type="image/png")
