"""Questions to our own Triton over HTTP."""

from __future__ import annotations

import http.client
import urllib.request

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our own server is asked without a proxy


def ask(request: urllib.request.Request | str, timeout_s: float) -> str:
    """The text of an answer with status 200.

    Raises OSError without one: for another status, and also where Triton ends while it answers, or what listens there
    does not speak HTTP.
    """
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            if answer.status != http.client.OK:
                raise ConnectionError(f"[triton] expected status 200 of {answer.url} but got {answer.status}")
            return str(answer.read().decode())
    except http.client.HTTPException as error:
        raise ConnectionError(f"[triton] expected an answer but it was cut off, or no HTTP: {error!r}") from error
