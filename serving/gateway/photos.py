"""`POST /v1/styles`: the style of a photo."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from serving.gateway.drawing import as_problem
from serving.gateway.openapi import STYLES
from serving.gateway.orders import STYLE_VALUES, no_style_input
from serving.gateway.problems import Problem
from serving.gateway.state import caller_of, state_of
from serving.gateway.uploads import read_form
from serving.gateway.upstream import UpstreamError

router = APIRouter(tags=["images"])


class PhotoStyle(BaseModel):
    """The style of a photo."""

    style: list[float] = Field(description=f"{STYLE_VALUES} numbers, for the field `style` of /v1/synthesize")


@router.post("/v1/styles", summary="The style of a photo", openapi_extra=STYLES)
async def styles(request: Request) -> PhotoStyle:
    state, caller = state_of(request), caller_of(request)
    form = await read_form(request, state.settings.doors.max_body_bytes, state.settings.body_timeout_s)
    photos = form.files("style_image")
    if len(photos) != 1 or not photos[0] or form.names() != ["style_image"]:
        raise Problem("invalid-request", f"[styles] expected one file 'style_image' but got {form.names()}")
    caller.take(1)
    try:
        model = await state.model()
        if not model.info.style:
            raise no_style_input(model.info)
        found = await state.photos.style(photos[0], model.weights)
    except UpstreamError as error:
        raise as_problem(error) from None
    return PhotoStyle(style=[float(value) for value in found[0]])
