"""What all routes share."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from serving.gateway.settings import Settings
from serving.gateway.upstream import Upstream


@dataclass(frozen=True, eq=False)
class State:
    """What all routes share: `request.app.state.gateway`.

    Attributes:
        settings: of this process.
        upstream: the way to Triton.
    """

    settings: Settings
    upstream: Upstream


def state_of(request: Request) -> State:
    """The state of the app that a request came to."""
    found = request.app.state.gateway
    assert isinstance(found, State)
    return found


def client_of(request: Request) -> str:
    """Who asks, for the fairness of the queue: the address."""
    return request.client.host if request.client else ""
