"""The routes of the studio: its files, and what the page needs to start."""

from __future__ import annotations

import base64
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from serving.gateway.drawing import as_problem
from serving.gateway.model_classes import blank, classes, config_of, first_brush
from serving.gateway.rle import encode_runs
from serving.gateway.state import state_of
from serving.gateway.upstream import UpstreamError
from serving.protocol import ModelInfo
from spade_core.maps.drawn import demo_map
from spade_core.maps.png import LabelMapError

PAGE = Path(__file__).with_name("page")
SCENES = {
    "lake": (9, 9), "village": (14, 14), "dusk": (5, 5), "path": (20, 20), "winter": (27, 9), "night": (12, 12),
    "sails": (6, 20),
}  # fmt: skip
"""Name: (seed of a drawn scene, seed of the style that its picture has) on the first screen."""

FIRST_STYLE = 9

# The page may load its own files, connect to its own server, and show pictures that it has made itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-cache",  # a new version of the server brings a new page; ETags keep that cheap
}

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/studio")
async def to_studio() -> Response:
    return RedirectResponse("/studio/")


@router.get("/v1/studio")
async def start(request: Request) -> dict[str, Any]:
    """The model, its classes and the scenes of the first screen."""
    try:
        info = (await state_of(request).model()).info
    except UpstreamError as error:
        raise as_problem(error) from None
    model = {name: getattr(info, name) for name in ("preset", "height", "width", "style", "max_batch")}
    model["styles"] = list(info.named_styles())
    return {"model": model, "classes": classes(info), "scenes": scenes(info), "brush": first_brush(info)}


def scenes(info: ModelInfo) -> list[dict[str, Any]]:
    """The blank horizon, and drawn scenes where the model has classes of landscapes: labels as runs in base64."""
    maps = [("blank", FIRST_STYLE, blank(info))]
    for name, (scene, style) in SCENES.items():
        try:
            labels, _ = demo_map(scene, config_of(info))
        except LabelMapError:
            break  # own classes: nothing can be drawn in them
        maps.append((name, style, labels))
    return [
        {"name": name, "seed": style, "map": base64.b64encode(encode_runs(np.ascontiguousarray(labels))).decode()}
        for name, style, labels in maps
    ]


class _Files(StaticFiles):
    """The page's files, each with the page's security headers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        await super().__call__(scope, receive, send_with_headers)


def install(app: FastAPI) -> None:
    """Add the studio to the gateway's application."""
    app.include_router(router)
    app.mount("/studio", _Files(directory=PAGE, html=True), name="studio")
