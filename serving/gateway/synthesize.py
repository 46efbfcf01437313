"""`POST /v1/synthesize`: label maps in, images out."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from serving.gateway import accept
from serving.gateway.drawing import Drawn, as_problem, draw, matches, tag_of, while_there
from serving.gateway.headers import drawn_headers
from serving.gateway.openapi import SYNTHESIZE
from serving.gateway.orders import FORMATS, Order, order, order_of_form
from serving.gateway.problems import Problem
from serving.gateway.state import Model, state_of
from serving.gateway.uploads import read_body, read_form
from serving.gateway.upstream import UpstreamError

router = APIRouter(tags=["images"])

JSON, ZIP = "application/json", "application/zip"
_QUERY = ("seed", "count", "format", "quality", "size", "timeout", "style_name")
_RAW = ("image/png", "application/octet-stream", "application/x-www-form-urlencoded", "")


@router.post("/v1/synthesize", summary="Draw the images of a label map", openapi_extra=SYNTHESIZE)
async def synthesize(request: Request) -> Response:
    state = state_of(request)
    try:
        model = await state.model(fresh="if-none-match" in request.headers)
    except UpstreamError as error:
        raise as_problem(error) from None
    wanted = await _read_order(request, model, state.settings.max_count)
    if wanted.style_image is not None:
        wanted = await _styled(request, wanted, model)
    media_type = _media_type(request, wanted)
    if matches(request.headers.get("if-none-match"), tag := tag_of(wanted, model.identity, media_type)):
        return Response(status_code=304, headers={"ETag": tag or ""})
    drawn = await while_there(request, draw(state, wanted, request))
    tag = tag_of(wanted, drawn.identity, media_type)
    return Response(_body(drawn, wanted, media_type), 200, drawn_headers(drawn, wanted.seeds, tag), media_type)


async def _styled(request: Request, wanted: Order, model: Model) -> Order:
    """An order with the style of its photo. Raises Problem."""
    assert wanted.style_image is not None
    try:
        return wanted.styled(await state_of(request).photos.style(wanted.style_image, model.weights))
    except UpstreamError as error:
        raise as_problem(error) from None


async def _read_order(request: Request, model: Model, max_count: int) -> Order:
    """The order of a form, or of a PNG as the body with the rest in the query. Raises Problem."""
    settings = state_of(request).settings
    limits = (settings.doors.max_body_bytes, settings.body_timeout_s)
    preferred = _preferred(request.headers.get("accept", ""))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        if request.url.query:
            raise Problem("invalid-request", "[synthesize] expected the fields of a form in the form, not in the query")
        return order_of_form(await read_form(request, *limits), model.info, max_count, preferred)
    if kind not in _RAW:
        raise Problem(
            "unsupported-media-type",
            f"[synthesize] expected multipart/form-data, or image/png for a label map as the body, but got {kind!r}",
        )
    query = request.query_params
    if unknown := [name for name in query if name not in _QUERY]:
        raise Problem(
            "invalid-request",
            f"[synthesize] expected query parameters out of {', '.join(_QUERY)} but got {', '.join(unknown)}",
        )
    if len(query.multi_items()) > len(query):
        raise Problem("invalid-request", "[synthesize] expected each query parameter once but got one twice")
    body = await read_body(request, *limits)
    return order(body, None, None, model.info, max_count, preferred, {name: query.get(name) for name in _QUERY})


def _preferred(header: str) -> str:
    """The image format that Accept likes best; png where it names none."""
    chosen = accept.best(header, list(FORMATS.values()))
    return next((name for name, kind in FORMATS.items() if kind == chosen), "png")


def _media_type(request: Request, wanted: Order) -> str:
    """The type of the answer. Raises Problem where Accept has none of the offered ones."""
    several = wanted.count > 1
    offered = [ZIP, JSON] if several else [FORMATS[wanted.format], JSON, ZIP]
    header = request.headers.get("accept", "")
    chosen = accept.best(header, offered)
    if chosen is None:
        what = "several images are sent as" if several else "one image is sent as"
        raise Problem("not-acceptable", f"[synthesize] {what} {' or '.join(offered)} but Accept is {header!r}")
    return chosen


def _body(drawn: Drawn, wanted: Order, media_type: str) -> bytes:
    if media_type == ZIP:
        return _zip(drawn.files, wanted.format)
    if media_type == JSON:
        images = [
            {"b64_json": base64.b64encode(file).decode()} | ({} if wanted.seeds is None else {"seed": wanted.seeds[i]})
            for i, file in enumerate(drawn.files)
        ]
        return json.dumps({"format": wanted.format, "images": images}).encode()
    return drawn.files[0]


def _zip(files: Sequence[bytes], suffix: str) -> bytes:
    """An archive of 0.png, 1.png, .. with equal bytes for equal files: its dates are fixed."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for i, file in enumerate(files):
            opened.writestr(zipfile.ZipInfo(f"{i}.{suffix}"), file)
    return archive.getvalue()
