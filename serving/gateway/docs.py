"""`/docs`: Swagger UI over the calls, offline. Its files come from the package fastapi-swagger, none from a CDN."""

from __future__ import annotations

import importlib.resources
from functools import lru_cache

from fastapi import APIRouter, Response

from serving.gateway.problems import Problem

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<base href="docs/">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SPADE Serve: HTTP interface</title>
<link rel="stylesheet" href="swagger-ui.css">
<link rel="icon" href="favicon-32x32.png">
</head>
<body>
<div id="calls"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "../openapi.json", dom_id: "#calls", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""
_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
# Swagger UI sets styles from its script; no script of the page itself is inline.
_CSP = "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_KEPT = {"Cache-Control": "public, max-age=86400"}


@router.get("/docs")
async def page() -> Response:
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _CSP})


@router.get("/docs/start.js")
async def start() -> Response:
    return Response(_START, media_type="text/javascript")


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    if name not in _TYPES:
        raise Problem("not-found", f"[docs] expected {', '.join(_TYPES)} but got {name!r}")
    return Response(_asset(name), media_type=_TYPES[name], headers=_KEPT)


@lru_cache(maxsize=len(_TYPES))
def _asset(name: str) -> bytes:
    return (importlib.resources.files("fastapi_swagger") / "resources" / name).read_bytes()
