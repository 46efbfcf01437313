"""The Prometheus scrape of a real server, against docs/metrics.md and against the requests that were sent."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from scraped import moved_since, scrape, scrape_at_rest
from served import blocks, png

from kernels.isa import supported_isas
from serving.client.client import Client, ServerError
from serving.protocol import RequestTimings
from serving.triton.metrics import SPADE, SPADE_IMAGE, Metrics
from serving.triton.server import Server

DOCS = Path(__file__).parents[2] / "docs"


def base_names(samples: dict[str, float]) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name.split()[0]) for name in samples}


def test_docs_and_scrape_hold_the_same_metrics(demo_server: Server) -> None:
    supervisors, _, models = (DOCS / "metrics.md").read_text().partition("## Model `spade`")
    documented = set(re.findall(r"^\| `(spade_\w+)`", models, re.MULTILINE))
    assert {"spade_up", "spade_restarts_total"} <= set(re.findall(r"`(spade_\w+)`", supervisors))
    assert base_names(scrape(demo_server)) == documented
    assert documented == {metric.name for metric in SPADE + SPADE_IMAGE}


def test_the_scrape_in_the_docs_is_of_this_version() -> None:
    example = (DOCS / "metrics.md").read_text().split("## A scrape")[1]
    for metric in SPADE + SPADE_IMAGE:
        assert f"# HELP {metric.name} {metric.description}\n# TYPE {metric.name} {metric.kind}\n" in example


def test_the_columns_of_timings_are_documented_in_order() -> None:
    columns = re.findall(r"^\| \d `(\w+)`", (DOCS / "serving.md").read_text(), re.MULTILINE)
    assert columns == [field.name for field in fields(RequestTimings)]


def test_requests_move_the_metrics(tiny_server: Server) -> None:
    labels = blocks(1, count=3, size=64, classes=8)
    before = scrape_at_rest(tiny_server)
    with Client(tiny_server.grpc_url) as client:
        timings = client.synthesize(labels, labels.astype("int32")).timings
        client.synthesize_image([png(labels[0])], [png(labels[0])])
        for _ in range(2):
            with pytest.raises(ServerError, match="expected an instance map"):
                client.synthesize(labels[:1])
    moved = moved_since(tiny_server, before, {"spade_requests_total invalid": 2, "spade_image_requests_total ok": 1})
    assert moved["spade_requests_total ok"] == 2
    assert moved["spade_requests_total invalid"] == 2
    assert moved["spade_images_total"] == 4
    assert moved["spade_image_requests_total ok"] == 1
    if supported_isas():  # the cpu engine, whose cache holds the PNG's map since the first request
        assert moved["spade_cached_maps_total"] >= 1
    assert moved["spade_batch_size_sum"] == 4
    assert [moved[f"spade_batch_size_bucket {le}"] for le in ("1", "2", "3", "+Inf")] == [1, 1, 2, 2]
    for metric in SPADE + SPADE_IMAGE:
        if metric.kind == "histogram":
            expected = 1 if metric in SPADE_IMAGE else 2
            assert moved[f"{metric.name}_count"] == moved[f"{metric.name}_bucket +Inf"] == expected
            assert moved[f"{metric.name}_sum"] > 0
    assert moved["spade_convs_seconds_sum"] >= timings.convs_s * 0.999


class Family:
    """Stands in for Triton's metric families: its series record what is written to them."""

    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
    written: ClassVar[list[tuple[str, str, float]]] = []

    def __init__(self, name: str, description: str, kind: str) -> None:
        del description, kind
        self.name = name

    def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> SimpleNamespace:
        del buckets
        series = labels.get("outcome", self.name)

        def write(how: str, value: float) -> None:
            self.written.append((how, series, value))

        return SimpleNamespace(**{how: partial(write, how) for how in ("increment", "set", "observe")})


def test_a_flush_writes_every_time_and_then_counters_as_one_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.triton.metrics.FLUSH_S", 60)
    metrics = Metrics(SimpleNamespace(MetricFamily=Family), SPADE, {})
    for waiting, seconds in ((2, 0.25), (0, 0.5)):
        metrics.increment("spade_requests_total.ok")
        metrics.increment("spade_cached_maps_total", 0)
        metrics.set("spade_waiting_requests", waiting)
        metrics.observe("spade_plan_seconds", seconds)
    metrics.close()
    assert Family.written == [
        ("observe", "spade_plan_seconds", 0.25),
        ("observe", "spade_plan_seconds", 0.5),
        ("set", "spade_waiting_requests", 0),
        ("increment", "ok", 2),
    ]
