"""The gateway's own metrics in the scrape of everything."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from served import blocks, png

from serving.client.client import Client
from serving.gateway.pair import Pair
from serving.triton.model_config import ModelOptions

DOCS = Path(__file__).parents[3] / "docs"
LABELS = ("door", "call", "status", "reason", "outcome")


def scrape(pair: Pair) -> dict[tuple[str, ...], float]:
    """Samples of the gateway, by name and labels."""
    text = httpx.get(pair.metrics_url).text
    return {
        (
            sample.name,
            *(sample.labels[name] for name in LABELS if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("spade_gateway_")
    }


def test_requests_are_counted_by_door_call_and_status(tiny_gateway: Pair) -> None:
    labels = blocks(2, size=64, classes=8)
    file = png(labels[0])
    before = scrape(tiny_gateway)
    with httpx.Client(base_url=tiny_gateway.http_url, timeout=60) as http:
        http.post("/v1/synthesize", files={"label_map": file, "instance_map": file})
        http.post("/v1/synthesize", files={"label_map": file})
        http.get("/v1/no/such/call")
    with Client(tiny_gateway.grpc_url) as client:
        client.synthesize(labels, labels.astype(np.int32))
    after = scrape(tiny_gateway)
    counted = {
        key[1:]: value - before.get(key, 0) for key, value in after.items() if key[0] == "spade_gateway_requests_total"
    }
    assert counted["http", "/v1/synthesize", "200"] == 1
    assert counted["http", "/v1/synthesize", "400"] == 1
    assert counted["http", "other", "404"] == 1
    assert counted["grpc", "ModelInfer", "OK"] == 1
    for call in (("grpc", "ModelInfer"), ("http", "/v1/synthesize")):
        seconds, own = (after[f"spade_gateway_{name}_seconds_sum", *call] for name in ("request", "own"))
        assert 0 < own < seconds
    assert after[("spade_gateway_waiting_maps",)] == 0
    assert after[("spade_gateway_sent_maps",)] == 0


def test_every_metric_of_the_gateway_is_documented(tiny_gateway: Pair) -> None:
    documented = set(re.findall(r"^\| `(spade_gateway_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    httpx.get(f"{tiny_gateway.http_url}/healthz").raise_for_status()  # requests are counted from the first one on
    found = {re.sub(r"_(bucket|sum|count)$", "", key[0]) for key in scrape(tiny_gateway)}
    assert found == documented


def test_deadlines_are_counted_by_what_became_of_them(tiny_gateway: Pair) -> None:
    file = png(blocks(2, size=64, classes=8)[0])
    before = scrape(tiny_gateway)
    with httpx.Client(base_url=tiny_gateway.http_url, timeout=60) as http:
        for timeout in ("30", "0.0001"):
            files = {"label_map": file, "instance_map": file}
            http.post("/v1/synthesize", files=files, data={"timeout": timeout})
    after = scrape(tiny_gateway)
    moved = {key: value - before[key] for key, value in after.items() if key in before}
    outcomes = {key[1]: value for key, value in moved.items() if key[0] == "spade_gateway_deadlines_total"}
    assert outcomes["met"] == 1
    assert outcomes["missed"] + outcomes["refused"] == 1
    assert moved[("spade_gateway_deadline_seconds_count",)] == 2
    assert 30 <= moved[("spade_gateway_deadline_seconds_sum",)] < 30.01
    assert moved[("spade_gateway_queue_seconds_count",)] >= 1
    assert moved["spade_gateway_refused_total", "full"] == 0
    assert after[("spade_gateway_waiting_limit_maps",)] == ModelOptions().queue_size
