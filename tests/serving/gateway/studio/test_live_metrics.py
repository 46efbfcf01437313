"""What live painting counts: each picture and request as a request of the door `live`, and its sessions."""

from __future__ import annotations

import re

import httpx
import pytest
from live_client import LiveClient

from serving.gateway.pair import Pair
from spade_core.config import preset
from spade_core.maps.drawn import demo_map

pytestmark = pytest.mark.xdist_group("chromium")

SCENE = demo_map(9, preset("demo"), height=128, width=128)[0]


def test_pictures_and_requests_are_counted_as_requests(studio: Pair) -> None:
    def counts() -> dict[str, float]:
        return {
            f"{name}{{{labels}}}": float(value)
            for name, labels, value in re.findall(
                r"^(spade_gateway_\w+)\{?([^}\n]*)\}? (\S+)$", httpx.get(studio.metrics_url).text, re.M
            )
        }

    def requests(call: str, status: int) -> str:
        return f'spade_gateway_requests_total{{call="{call}",door="live",status="{status}"}}'

    before = counts()
    with LiveClient(studio) as live:
        live.map(SCENE)
        live.frame()
        live.ask({"type": "vector", "style": {"seed": 3}})
        live.ask({"type": "variants", "styles": []})
        during = counts()
    assert during[requests("frame", 200)] > before.get(requests("frame", 200), 0)
    assert during[requests("vector", 200)] == before.get(requests("vector", 200), 0) + 1
    assert during[requests("variants", 400)] == before.get(requests("variants", 400), 0) + 1
    assert during["spade_gateway_live_connections{}"] == before["spade_gateway_live_connections{}"] + 1
    assert during["spade_gateway_live_sessions{}"] >= during["spade_gateway_live_connections{}"]
    seconds = 'spade_gateway_request_seconds_count{call="frame",door="live"}'
    assert during[seconds] > before.get(seconds, 0)
