"""Whether a server that was just started is ready, asked over HTTP."""

from __future__ import annotations

import urllib.request

from serving.protocol import MODELS
from serving.triton.announcement import ADMIN_HEADER
from serving.triton.ask import ask

_TIMEOUT_S = 5


def ready(http_url: str, secret: str) -> bool:
    """Whether both models take requests at `http_url`, and the server there is the one that was given `secret`.

    Another program may have taken the port in the moment in which it was free, another Triton too.
    """
    try:
        for path in ("health/ready", *(f"models/{model}/ready" for model in MODELS)):
            ask(f"{http_url}/v2/{path}", _TIMEOUT_S)
        ask(urllib.request.Request(f"{http_url}/v2/repository/index", b"", {ADMIN_HEADER: secret}), _TIMEOUT_S)
    except OSError:
        return False
    return True
