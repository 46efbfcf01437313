"""Load on a server: figures of made-up requests, searches on made-up servers, loops over real HTTP, a real run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import validate

from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream
from benchmarks.load.command import server
from benchmarks.load.doors import (
    RestBody,
    RestConnection,
    door,
    encode_rest,
    encode_v2,
    filled_in,
    timings_of,
)
from benchmarks.load.figures import Window, figures, kept_up, mean_batch, slow_share, thinned
from benchmarks.load.loops import Requests, Shot, closed_loop, open_loop
from benchmarks.load.search import GROWTH, highest_rate
from benchmarks.load.targets import config_of, doors_at
from benchmarks.report.report import Report
from kernels.isa import supported_isas
from serving.gateway.headers import timings_header
from serving.protocol import ModelInfo, RequestTimings
from spade_core.config import GeneratorConfig
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator

SCHEMA = json.loads((Path(__file__).parents[2] / "benchmarks/report/schema.json").read_text())
TINY = GeneratorConfig("tiny", 8, True, False, 64, 64, 4, "normal", "batch", 3, False, "spade")


def timings(total_s: float, batch: int) -> RequestTimings:
    return RequestTimings(0.25, 0.1, 0.1, 0.3, total_s, batch, 0.2)


def shot(due: float, latency: float, outcome: str = "ok", total: float = 1.0, batch: int = 1) -> Shot:
    answered = timings(total, batch) if outcome == "ok" else None
    return Shot(due, due, due + latency, outcome, 1, answered)  # type: ignore[arg-type]


# ---- Figures ----


def test_figures_count_from_the_planned_sending_and_only_what_was_due() -> None:
    late = Shot(due_s=1.0, sent_s=3.0, done_s=4.0, outcome="ok", images=1, timings=timings(1.0, 1))
    row = figures([Window([late, shot(0.5, 1.0), shot(9.0, 1.0)], 1.0, 5.0)])
    assert row["requests"] == 1
    assert row["p50_s"] == row["max_s"] == 3.0
    assert row["late_s"] == 2.0
    assert row["outside_s"] == pytest.approx(3.0 - 0.25 - 0.5)


def test_images_at_the_edge_of_a_window_count_by_their_share() -> None:
    window = Window([shot(0.0, 2.0, total=2.0), shot(4.0, 2.0, total=2.0)], 1.0, 5.0)
    assert window.images_s == pytest.approx((1 / 2 + 1 / 2) / 4)


def test_refusals_are_counted_and_timed_and_left_out_of_percentiles() -> None:
    row = figures([Window([shot(0, 1.0), shot(0, 0.002, "refused"), shot(0, 4.0, "timed out")], 0, 1)])
    assert (row["answered"], row["refused"], row["timed_out"], row["failed"]) == (1, 1, 1, 0)
    assert row["p999_s"] == 1.0
    assert row["refusal_p99_s"] == 0.002


def test_batches_are_put_together_from_requests() -> None:
    row = figures([Window([shot(0, 1.0, batch=4)] * 4 + [shot(0, 1.0, batch=1)], 0, 1)])
    assert row["batch_sizes"] == {"1": 1.0, "4": 1.0}
    assert mean_batch(row) == 2.5


def test_a_load_without_an_answer_has_no_percentile() -> None:
    row = figures([Window([shot(0, 1.0, "failed")], 0, 1)])
    assert row["p50_s"] is row["queue_s"] is None
    json.dumps(row, allow_nan=False)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400), st.integers(2, 60))
def test_thinned_latencies_keep_both_ends_and_their_order(values: list[float], most: int) -> None:
    kept = thinned(sorted(values), most)
    assert len(kept) == min(most, len(values))
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (min(values), max(values))


def served(rate: float, seconds: int, capacity: float) -> Window:
    """The requests of a server that takes 1 / capacity s for each, one after another."""
    free, shots = 0.0, []
    for k in range(round(rate * seconds)):
        due = k / rate
        free = max(free, due) + 1 / capacity
        shots.append(Shot(due, due, free, "ok", 1, timings(1 / capacity, 1)))
    return Window(shots, 0.2 * seconds, seconds)


@pytest.mark.parametrize(("rate", "expected"), [(5, True), (9.9, True), (11.5, False), (30, False)])
def test_a_server_keeps_up_until_a_backlog_grows(rate: float, expected: bool) -> None:
    assert kept_up(served(rate, 40, capacity=10)) is expected


def test_a_refused_request_is_slow() -> None:
    window = Window([shot(0, 0.1), shot(0, 0.1), shot(0, 0.001, "refused"), shot(0, 3.0)], 0, 1)
    assert slow_share(window, 0.2) == 0.5


# ---- Searches ----


@given(st.floats(0.5, 2000), st.floats(0.1, 3))
def test_the_search_ends_just_below_the_limit(limit: float, start_share: float) -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = highest_rate(holds, start_share * limit, halvings=3)
    assert found is not None
    assert limit / (1 + (GROWTH - 1) / 8 + 1e-9) <= found <= limit
    assert len(tried) <= 20


def test_a_server_that_holds_nothing_has_no_rate() -> None:
    assert highest_rate(lambda _rate: False, 10.0, 2) is None


# ---- Loops, over HTTP to a real server that draws nothing ----


@contextlib.asynccontextmanager
async def http_server(answers: list[tuple[float, int]]) -> AsyncIterator[str]:
    """Answers request k after answers[k][0] seconds with status answers[k][1], the last one for all that follow."""
    number = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal number
        await request.read()
        wait, status = answers[min(number, len(answers) - 1)]
        number += 1
        await asyncio.sleep(wait)
        return web.Response(status=status, body=b"image")

    app = web.Application()
    app.router.add_post("/v1/synthesize", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def requests_to(url: str) -> Requests:
    labels = np.random.default_rng(0).integers(0, 8, (2, 4, 4), dtype=np.uint8)
    return Requests(door("rest", url), Maps(labels, None, labels.astype(np.int32), None), Stream(), 1)


def test_an_open_loop_sends_when_requests_are_due_and_keeps_a_stall_in_the_latencies() -> None:
    """The first answer stalls; the others go out on time all the same."""

    async def run() -> list[Shot]:
        async with http_server([(0.5, 200), (0.0, 200)]) as url:
            return await open_loop(door("rest", url), requests_to(url), [0.0, 0.1, 0.2], 2, 10.0)

    shots = sorted(asyncio.run(run()), key=lambda one: one.due_s)
    assert [one.due_s for one in shots] == [0.0, 0.1, 0.2]
    assert shots[0].latency_s >= 0.5
    assert all(one.sent_s >= one.due_s for one in shots)
    assert shots[1].done_s < shots[0].done_s


def test_outcomes_of_http_are_told_apart() -> None:
    async def run() -> list[Shot]:
        async with http_server([(0, 200), (0, 503), (0, 429), (0, 504), (0, 500), (3, 200)]) as url:
            shots = []
            for _ in range(6):
                shots += await open_loop(door("rest", url), requests_to(url), [0.0], 1, 1.0)
            return shots

    outcomes = [one.outcome for one in asyncio.run(run())]
    assert outcomes == ["ok", "refused", "refused", "timed out", "failed", "timed out"]


def test_a_server_that_is_gone_is_a_failed_request() -> None:
    async def run() -> str:
        connection = RestConnection("http://127.0.0.1:9")
        try:
            return (await connection.send(RestBody(b"", None), 5.0)).outcome
        finally:
            await connection.close()

    assert asyncio.run(run()) == "failed"


def test_a_closed_loop_has_one_request_of_each_client_out() -> None:
    async def run() -> list[Shot]:
        async with http_server([(0.02, 200)]) as url:
            return await closed_loop(door("rest", url), requests_to(url), 3, 0.4, 10.0)

    shots = asyncio.run(run())
    assert len(shots) >= 3
    most = max(sum(other.sent_s <= one.sent_s < other.done_s for other in shots) for one in shots)
    assert most == 3


def test_no_label_map_is_sent_twice() -> None:
    requests = requests_to("http://127.0.0.1:1")
    requests.prepare(20)
    assert len({requests.next() for _ in range(32)}) == 32


def test_the_door_rest_takes_one_map() -> None:
    with pytest.raises(ValueError, match="expected one label map for the door rest but got 2"):
        encode_rest({"labels": np.zeros((2, 4, 4), np.uint8)})


def test_a_v2_request_tells_when_it_was_sent_and_how_long_its_client_waits() -> None:
    """The JSON keeps its length, which was told beforehand."""
    body, size = encode_v2({"labels": np.zeros((1, 4, 4), np.uint8)})
    told = filled_in(body[:size], 2.5)
    assert len(told) == size
    parameters = json.loads(told)["parameters"]
    assert parameters["timeout"] == 2_500_000
    assert abs(parameters["sent_unix_us"] / 1e6 - time.time()) < 60


def test_timings_are_read_from_the_headers_of_an_answer() -> None:
    told = timings_header(timings(1.0, 4))
    assert timings_of({"server-timing": told, "x-spade-batch-size": "4"}) == replace(timings(1.0, 4), distinct_share=-1)
    assert timings_of({"server-timing": "queue;dur=3"}) is None
    assert timings_of({}) is None


# ---- Targets and the command ----


def test_addresses_give_their_doors() -> None:
    found = doors_at(["grpc://a:1", "http://a:2"], ("grpc", "http", "rest"))
    assert [(one.name, one.url) for one in found] == [
        ("grpc", "grpc://a:1"), ("http", "http://a:2"), ("rest", "http://a:2")
    ]  # fmt: skip
    with pytest.raises(ValueError, match="expected a server as grpc://HOST:PORT or http://HOST:PORT, or local, but"):
        doors_at(["ftp://a"], ("grpc",))
    with pytest.raises(ValueError, match="expected addresses for the doors rest but got grpc://a:1"):
        doors_at(["grpc://a:1"], ("rest",))


def test_a_servers_info_is_enough_for_label_maps() -> None:
    info = ModelInfo("coco", 182, True, 128, 64, True, False, 8, 1 << 20)
    config = config_of(info)
    assert (config.label_nc, config.dont_care, config.height, config.width) == (182, True, 128, 64)
    assert (config.instance_edges, config.style) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["local", "--doors", "ftp"], "--doors: expected names out of grpc, http, rest but got 'ftp'"),
        (["local", "--rates", "x"], "expected numbers with commas between but got 'x'"),
        (["grpc://a:1", "--precision", "fp32"], "--precision: the server decides that"),
        (["local", "--concurrency", "0"], "expected numbers above 0 but got '0'"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(server, arguments)
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_a_short_run_on_a_real_server_and_its_comparison(tmp_path: Path) -> None:
    save(tmp_path / "w.safetensors", seeded_generator(TINY))
    common = ["--concurrency", "2", "--rates", "20", "--seconds", "0.5", "--warm-up", "0.2", "--rounds", "2",
              "--weights", "w.safetensors", "--precision", "fp32", "--threads", "1"]  # fmt: skip
    run(tmp_path, *common, "--json", "a.json", "--html", "a.html")
    report = json.loads((tmp_path / "a.json").read_text())
    validate(report, SCHEMA)
    assert {(row["name"], row["case"]) for row in report["rows"]} >= {
        ("grpc closed", "2 clients, batch 1"), ("grpc open", "20 requests/s, batch 1"),
        ("http open", "20 requests/s, batch 1"), ("rest closed", "2 clients, batch 1"),
    }  # fmt: skip
    for row in (row for row in report["rows"] if row["mode"] in {"closed", "open"}):
        assert row["answered"] == row["requests"] > 0
        assert row["p50_s"] <= row["p90_s"] <= row["p99_s"] <= row["max_s"]
        assert row["engine_s"] > 0
        assert len(row["measures"]["images_s"]) == 2
    assert "<svg " in (tmp_path / "a.html").read_text()
    done = run(tmp_path, *common, "--doors", "grpc", "--slo-p99-ms", "60000", "--compare", "a.json")
    assert "against the report of" in done
    assert Report.read(tmp_path / "a.json", "server").rows


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "serving.cli", "bench", "server", "local", *arguments]
    return subprocess.run(command, check=True, cwd=folder, stdout=subprocess.PIPE, text=True).stdout
