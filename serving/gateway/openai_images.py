"""`POST /v1/images/edits` in the shape of OpenAI's image interface, so that its clients can be pointed here.

`image` is the label map. The prompt is read by nobody: the picture is what the map says.
"""

from __future__ import annotations

import base64
import json
import time

from fastapi import APIRouter, Request, Response

from serving.gateway.drawing import as_problem, draw, tag_of, while_there
from serving.gateway.headers import drawn_headers
from serving.gateway.openapi import EDITS
from serving.gateway.orders import Order, order
from serving.gateway.problems import Problem
from serving.gateway.state import state_of
from serving.gateway.uploads import Form, read_form
from serving.gateway.upstream import UpstreamError
from serving.protocol import ModelInfo

router = APIRouter(tags=["images"])

_IMAGES = ("image", "image[]")
_UNREAD = ("prompt", "model", "user", "background", "input_fidelity", "moderation", "quality")
_READ = (
    "n", "size", "response_format", "output_format", "output_compression", "seed", "style_name", "colours", "stream",
)  # fmt: skip
_INSTANCES = "instance_map"


@router.post("/v1/images/edits", summary="Draw a label map, by a client of OpenAI's images", openapi_extra=EDITS)
async def edits(request: Request) -> Response:
    state = state_of(request)
    form = await read_form(request, state.settings.doors.max_body_bytes, state.settings.body_timeout_s)
    try:
        model = await state.model()
    except UpstreamError as error:
        raise as_problem(error) from None
    wanted = _order(form, model.info, state.settings.max_count)
    drawn = await while_there(request, draw(state, wanted, request))
    body = {
        "created": int(time.time()),
        "data": [{"b64_json": base64.b64encode(file).decode()} for file in drawn.files],
        "output_format": wanted.format,
        "size": wanted.size or f"{model.info.width}x{model.info.height}",
    }
    tag = tag_of(wanted, drawn.identity, "application/json")
    headers = {name: value for name, value in drawn_headers(drawn, wanted.seeds, tag).items() if name != "ETag"}
    return Response(json.dumps(body), 200, headers, "application/json")


def _order(form: Form, info: ModelInfo, max_count: int) -> Order:
    known = (*_IMAGES, *_UNREAD, *_READ, _INSTANCES)
    if unknown := [name for name in form.names() if name not in known]:
        raise _wrong(f"expected fields out of {', '.join(known)} but got {', '.join(map(repr, unknown))}")
    images = [file for name in _IMAGES for file in form.files(name)]
    if len(images) != 1:
        raise _wrong(f"expected one label map as image but got {len(images)}")
    if form.text("response_format") not in (None, "b64_json"):
        raise _wrong("expected response_format b64_json, since no image is kept under a URL here, but got another")
    if form.text("stream") not in (None, "false", "False"):
        raise _wrong("expected stream false, since an image comes at once, but got true")
    instances = form.files(_INSTANCES)
    texts = {
        "count": form.text("n"),
        "seed": form.text("seed"),
        "style_name": form.text("style_name"),
        "size": form.text("size"),
        "format": form.text("output_format"),
        "quality": form.text("output_compression"),
        "colours": form.text("colours"),
    }
    return order(images[0], instances[0] if instances else None, None, info, max_count, "png", texts)


def _wrong(text: str) -> Problem:
    return Problem("invalid-request", f"[edits] {text}")
