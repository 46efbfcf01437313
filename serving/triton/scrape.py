"""Triton's metrics, as text."""

from __future__ import annotations

import http.client
import urllib.request

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our own Triton is asked without a proxy


def scrape(url: str, timeout_s: float) -> str:
    """The answer of Triton's metrics port. Raises OSError, also where Triton ends while it answers."""
    try:
        with _OPENER.open(url, timeout=timeout_s) as answer:
            return str(answer.read().decode())
    except http.client.HTTPException as error:
        raise ConnectionError(f"[metrics] expected an answer of {url} but it was cut off: {error!r}") from error
