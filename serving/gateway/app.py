"""The HTTP application: every route of the gateway."""

from __future__ import annotations

from fastapi import FastAPI

from serving.gateway import health, problems, synthesize
from serving.gateway.state import State


def create_app(state: State) -> FastAPI:
    """The application over `state`. Each router is one subject; its owner adds a line here."""
    app = FastAPI(title="SPADE Serve", docs_url=None, redoc_url=None)
    app.state.gateway = state
    problems.install(app)
    app.include_router(health.router)
    app.include_router(synthesize.router)
    return app
