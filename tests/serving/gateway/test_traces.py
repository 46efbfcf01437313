"""One trace from a client through the gateway and both models of Triton, as a collector gets it by OTLP."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from live_client import LiveClient
from otlp_collector import Collected, Collector
from served import FREE_PORTS, blocks, png

from serving.gateway.pair import Pair, serve_pair
from serving.traces import Collector as Sender
from serving.traces import TracesError
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions

LABELS = blocks(1, size=64, classes=8)[0]
FILES = {"label_map": png(LABELS), "instance_map": png(LABELS)}
PARENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def traced(tiny_weights: Path) -> Iterator[tuple[Pair, Collector]]:
    model = ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1)
    with Collector() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with serve_pair(ServeOptions(model, **FREE_PORTS)) as pair:
            yield pair, collector


def one(spans: list[Collected], name: str, parent: str) -> Collected:
    (found,) = [span for span in spans if span.name == name and span.parent == parent]
    return found


def new_trace(sampled: str = "01") -> tuple[str, dict[str, str]]:
    trace = secrets.token_hex(16)
    return trace, {"traceparent": f"00-{trace}-{PARENT}-{sampled}"}


def test_a_drawing_is_one_trace_down_to_the_parts_of_the_engine(traced: tuple[Pair, Collector]) -> None:
    pair, collector = traced
    trace, headers = new_trace()
    answer = httpx.post(f"{pair.http_url}/v1/synthesize", files=FILES, headers=headers, timeout=60)
    assert answer.status_code == 200
    spans = collector.trace(trace, 10)
    assert len(spans) == 10
    call = one(spans, "POST /v1/synthesize", PARENT)
    image = one(spans, "spade_image", call.span)
    spade = one(spans, "spade", image.span)
    shares = {"wait for a turn": call, "decode": image, "encode": image}
    shares |= dict.fromkeys(("queue", "plan", "codebook", "convs"), spade)
    parts = {name: one(spans, name, parent.span) for name, parent in shares.items()}
    assert {span.service for span in (call, parts["wait for a turn"])} == {"spade-gateway"}
    assert {span.service for span in spans if span.parent in (image.span, spade.span)} == {"spade-model"}
    for name, parent in {"spade_image": call, "spade": image, **shares}.items():
        part = one(spans, name, parent.span)
        assert parent.began <= part.began <= part.ended <= parent.ended, name
    told = dict(re.findall(r"(\w+);dur=([0-9.]+)", answer.headers["x-spade-timings"]))
    for name in ("plan", "codebook", "convs"):
        assert parts[name].milliseconds == pytest.approx(float(told[name]), abs=0.002)
    assert spade.attributes["spade.batch_size"] == 1
    assert (spade.attributes["spade.engine"], spade.attributes["spade.precision"]) == ("cpu", "fp32")
    assert call.attributes["http.response.status_code"] == 200


def test_a_wrong_request_ends_its_trace_where_it_is_refused(traced: tuple[Pair, Collector]) -> None:
    pair, collector = traced
    trace, headers = new_trace()
    files = FILES | {"label_map": png(np.full_like(LABELS, 99))}
    assert httpx.post(f"{pair.http_url}/v1/synthesize", files=files, headers=headers, timeout=60).status_code == 400
    spans = collector.trace(trace, 5)
    assert sorted(span.name for span in spans) == [
        "POST /v1/synthesize",
        "decode",
        "spade",
        "spade_image",
        "wait for a turn",
    ]
    image = one(spans, "spade_image", one(spans, "POST /v1/synthesize", PARENT).span)
    for refused in (image, one(spans, "spade", image.span)):
        assert (refused.attributes["spade.outcome"], refused.failed) == ("invalid", False)


def test_grpc_and_live_painting_are_traced_too(traced: tuple[Pair, Collector]) -> None:
    pair, collector = traced
    trace, headers = new_trace()
    with triton_grpc.InferenceServerClient(pair.grpc_url.removeprefix("grpc://")) as client:
        inputs = []
        for name, tensor in {"labels": LABELS[None], "instances": LABELS[None].astype(np.int32)}.items():
            inputs.append(triton_grpc.InferInput(name, list(tensor.shape), {1: "UINT8", 4: "INT32"}[tensor.itemsize]))
            inputs[-1].set_data_from_numpy(tensor)
        client.infer("spade", inputs, headers=headers)
    spans = collector.trace(trace, 7)
    one(spans, "convs", one(spans, "spade", one(spans, "ModelInfer", PARENT).span).span)

    trace, headers = new_trace()
    with LiveClient(pair, headers=headers) as live:
        live.map(LABELS)
        live.frame()
    spans = collector.trace(trace, 8)
    draw = one(spans, "live draw", one(spans, "WS /v1/live", PARENT).span)
    one(spans, "convs", one(spans, "spade", draw.span).span)


def test_what_a_client_does_not_sample_is_not_sent(traced: tuple[Pair, Collector]) -> None:
    pair, collector = traced
    unsampled, headers = new_trace("00")
    assert httpx.post(f"{pair.http_url}/v1/synthesize", files=FILES, headers=headers, timeout=60).status_code == 200
    after, headers = new_trace()
    assert httpx.post(f"{pair.http_url}/v1/synthesize", files=FILES, headers=headers, timeout=60).status_code == 200
    collector.trace(after, 10)
    spans = collector.spans()
    assert unsampled not in {span.trace for span in spans}
    # The gateway asks the models for their limits again and again, which is in nobody's trace.
    assert "" not in {span.parent for span in spans if span.service == "spade-model"}


def test_a_collector_that_is_away_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    sender = Sender("test")
    span = sender.begin("x", None)
    sender.record("part", span.traceparent, 1, 2)
    span.end({})
    sender.close()


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracesError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT .* pip install -e '.\[otel\]'"):
        Sender("test")
