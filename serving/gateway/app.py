"""The HTTP application: every route of the gateway."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serving.gateway import health, model_routes, openai_images, problems, synthesize, v2_http
from serving.gateway.openapi import PROBLEM_SCHEMA
from serving.gateway.state import State


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The description of every call, with the schema of the errors."""
        described = super().openapi()
        described.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
        return described


def create_app(state: State) -> FastAPI:
    """The application over `state`. Each router is one subject; its owner adds a line here."""
    app = _App(title="SPADE Serve", docs_url=None, redoc_url=None)
    app.state.gateway = state
    problems.install(app)
    app.include_router(health.router)
    app.include_router(synthesize.router)
    app.include_router(openai_images.router)
    app.include_router(model_routes.router)
    app.include_router(v2_http.router)
    return app
