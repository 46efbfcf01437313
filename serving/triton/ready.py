"""Whether a server that was just started is ready, asked over HTTP."""

from __future__ import annotations

import http.client
import urllib.request

from serving.protocol import MODELS
from serving.triton.announcement import ADMIN_HEADER

_TIMEOUT_S = 5
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our own server is asked without a proxy


def ready(http_url: str, secret: str) -> bool:
    """Whether both models take requests at `http_url`, and the server there is the one that was given `secret`.

    Another program may have taken the port in the moment in which it was free, another Triton too.
    """
    paths = ["health/ready", *(f"models/{model}/ready" for model in MODELS)]
    asked: list[urllib.request.Request | str] = [f"{http_url}/v2/{path}" for path in paths]
    admin = urllib.request.Request(f"{http_url}/v2/repository/index", b"", {ADMIN_HEADER: secret})
    return all(_answers(one) for one in [*asked, admin])


def _answers(request: urllib.request.Request | str) -> bool:
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as response:
            return bool(response.status == http.client.OK)
    except (OSError, http.client.HTTPException):  # the second: what listens there does not speak HTTP
        return False
