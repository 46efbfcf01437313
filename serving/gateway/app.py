"""The HTTP application: every route of the gateway."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from serving.gateway import (
    docs,
    health,
    live,
    model_routes,
    openai_images,
    photos,
    problems,
    scrape,
    synthesize,
    v2_http,
)
from serving.gateway.entrance import Entrance
from serving.gateway.headers import EXPOSED
from serving.gateway.openapi import PROBLEM_SCHEMA, fitted
from serving.gateway.sessions import LiveSessions
from serving.gateway.state import State
from serving.gateway.studio import pages


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The description of every call, with the schema of the errors."""
        described = super().openapi()
        described.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
        model = self.state.gateway.last_model
        return described if model is None else fitted(described, model.info)


def create_app(state: State) -> FastAPI:
    """The application over `state`. Each router is one subject; its owner adds a line here."""
    app = _App(title="SPADE Serve", docs_url=None, redoc_url=None)
    app.state.gateway = state
    problems.install(app)
    app.include_router(health.router)
    app.include_router(synthesize.router)
    app.include_router(openai_images.router)
    app.include_router(photos.router)
    app.include_router(model_routes.router)
    app.include_router(v2_http.router)
    app.include_router(scrape.router)
    app.include_router(docs.router)
    app.state.live_sessions = LiveSessions()
    state.metrics.watch_live(app.state.live_sessions)
    app.include_router(live.router)
    pages.install(app)
    doors = state.settings.doors
    app.add_middleware(Entrance, callers=state.callers, tracer=state.tracer, metrics=state.metrics, tls=doors.tls)
    if doors.cors:  # outside of the entrance: a page may read why it was refused
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(doors.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-API-Key", "X-Request-Id"],
            expose_headers=EXPOSED,
        )
    return app
