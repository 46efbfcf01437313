"""The server benchmark: arithmetic on made-up schedules, loops on a server that sleeps, and one real run."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.common.load import (
    Connect,
    Reply,
    Sample,
    Send,
    Work,
    arrivals,
    closed_loop,
    engine_batches,
    open_loop,
    percentile,
    stable,
    work_in,
)
from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream, inputs_of
from benchmarks.server.run import main
from benchmarks.server.tables import Measured, closed_row, mean_batch
from kernels.isa import supported_isas
from spade_core.config import GeneratorConfig
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator

TINY = GeneratorConfig("tiny", 8, True, True, 64, 64, 4, "normal", "batch", 3, False, "spade")


def reply(images: int = 1, batch_size: int = 1, total_s: float = 1.0) -> Reply:
    return Reply(images, queue_s=0.25, engine_s=0.5, total_s=total_s, batch_size=batch_size)


def back_to_back(count: int, seconds: float = 1.0, images: int = 1) -> list[Sample]:
    """The samples of one client whose requests take `seconds` each."""
    return [
        Sample(k, k * seconds, k * seconds, (k + 1) * seconds, reply(images, images, seconds)) for k in range(count)
    ]


# ---- Percentiles and arrivals ----


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0
    assert np.isnan(percentile([], 0.5))


def test_fixed_arrivals_are_even_and_poisson_arrivals_have_their_rate_and_spread() -> None:
    assert arrivals(4, 1, "fixed") == [0, 0.25, 0.5, 0.75]
    due = arrivals(50, 200, "poisson", seed=1)
    gaps = np.diff(due)
    assert due[-1] < 200
    assert len(due) == pytest.approx(50 * 200, rel=0.05)
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(1 / 50, rel=0.1)  # an exponential gap deviates by its mean
    assert due == arrivals(50, 200, "poisson", seed=1) != arrivals(50, 200, "poisson", seed=2)


# ---- Throughput and windows ----


def test_images_at_the_edge_of_a_window_count_by_their_share() -> None:
    samples = back_to_back(4, seconds=2, images=8)  # 4 images/s from 0 to 8 s
    assert work_in(samples, 0, 8) == Work(images=32, busy=1)
    assert work_in(samples, 1, 4).images == pytest.approx(12)
    assert work_in(samples, 6, 10) == Work(images=8, busy=0.5)


def test_time_in_the_queue_is_no_work() -> None:
    waited = Sample(0, due_s=0, sent_s=0, done_s=10, reply=reply(total_s=1.0))
    assert work_in([waited], 0, 9) == Work(images=0, busy=0)
    assert work_in([waited], 9.5, 10) == Work(images=0.5, busy=1)


def test_requests_of_one_batch_make_the_model_busy_once() -> None:
    together = [Sample(k, 0, 0, 4, reply(2, batch_size=6, total_s=1.0)) for k in range(3)]
    assert work_in(together, 0, 4) == Work(images=6, busy=0.25)


def test_three_windows_within_ten_percent_are_stable() -> None:
    even = back_to_back(9)
    assert stable(even, 9, 3)
    slower = back_to_back(6) + [Sample(k, 6, 6, 6 + 1.5 * (k + 1), reply(total_s=1.5)) for k in range(2)]
    assert not stable(slower, 9, 3)
    assert not stable(even[:3], 9, 3), "windows without answers agree on nothing"


def test_engine_batches_are_put_together_from_requests() -> None:
    assert engine_batches([reply(8, 8)] * 2) == [8, 8]
    assert engine_batches([reply(1, 2)] * 4) == [2, 2]
    assert engine_batches([reply(1, 3), reply(1, 2), reply(1, 3), reply(1, 2), reply(1, 3)]) == [2, 3]
    assert mean_batch([reply(1, 4)] * 4 + [reply(1, 1)]) == 2.5


def test_ratio_is_busy_over_slowdown_and_overhead_is_what_is_left() -> None:
    timed = [Sample(k, due_s=2.0 * k, sent_s=2.0 * k, done_s=2.0 * k + 2, reply=reply(8, 8)) for k in range(3)]
    measured = Measured(images_s=4, busy=0.5, alone=10, untimed_s=0.1, agreed=True, cached=0)
    row = closed_row("grpc", 1, 8, timed, measured)
    assert row.overhead_s == 2 - 0.25 - 0.5
    assert row.ratio == 0.4
    assert row.slowdown == 1.25  # a batch takes the model 1 s, and the engine alone 0.8 s


# ---- Coordinated omission ----


def test_an_open_loop_counts_from_the_time_a_request_was_due() -> None:
    """A server that stalls once, and one sender. A request is due every 10 s and takes 1 s; the second takes 95 s."""
    samples, free = [], 0.0
    for number, due in enumerate(arrivals(0.1, 100, "fixed")):
        sent = max(due, free)
        free = sent + (95 if number == 1 else 1)
        samples.append(Sample(number, due, sent, free, reply()))
    from_sending = [s.done_s - s.sent_s for s in samples]
    latencies = [s.latency_s for s in samples]
    assert percentile(from_sending, 0.9) == 1  # counting from the sending hides the stall
    assert latencies == [1, 95, 86, 77, 68, 59, 50, 41, 32, 23]
    assert percentile(latencies, 0.5) == 50
    assert percentile(latencies, 0.9) == 86


def sleeper(answer: Callable[[int], Reply | None]) -> Connect:
    @contextlib.contextmanager
    def connect() -> Iterator[Send]:
        yield answer

    return connect


def test_open_loop_keeps_to_its_schedule_behind_a_stall() -> None:
    """The first request holds up the only sender. Later requests go out late, and their latency includes the delay."""

    def answer(number: int) -> Reply | None:
        time.sleep(0.2 if number == 0 else 0)
        return None if number == 2 else reply()

    samples = open_loop(sleeper(answer), [0, 0.05, 0.1], 1, itertools.count())
    assert [s.due_s for s in samples] == [0, 0.05, 0.1]
    assert all(s.sent_s >= 0.2 and s.latency_s == s.done_s - s.due_s >= 0.1 for s in samples[1:])
    assert [s.reply is None for s in samples] == [False, False, True]


def test_open_loop_sends_although_answers_are_outstanding() -> None:
    all_there = threading.Barrier(3)  # passes only when three requests are out at once

    def answer(_number: int) -> Reply:
        all_there.wait(timeout=30)
        return reply()

    samples = open_loop(sleeper(answer), [0, 0.05, 0.1], 3, itertools.count())
    assert len(samples) == 3
    assert all(s.sent_s >= s.due_s for s in samples)


def test_closed_loop_ends_when_windows_agree_and_numbers_every_request_once() -> None:
    def answer(_number: int) -> Reply:
        time.sleep(0.002)
        return reply(total_s=0.002)

    samples, end, _ = closed_loop(sleeper(answer), 2, window_s=0.1, most_windows=50, numbers=itertools.count())
    assert sorted(s.number for s in samples) == list(range(len(samples)))
    assert 0.3 <= end <= max(s.done_s for s in samples)


def test_closed_loop_raises_what_a_client_raised() -> None:
    def answer(_number: int) -> Reply:
        raise RuntimeError("the server is gone")

    with pytest.raises(RuntimeError, match="the server is gone"):
        closed_loop(sleeper(answer), 2, window_s=10, most_windows=10, numbers=itertools.count())


# ---- Maps ----


def test_no_label_map_comes_twice() -> None:
    labels = np.random.default_rng(0).integers(0, 8, (2, 4, 4), dtype=np.uint8)
    maps = Maps(labels, labels.astype(np.int32), labels.astype(np.int32), None)
    stream = Stream()
    seen, instances, style = inputs_of(maps, next(stream.requests(20)), 20)
    more, _, _ = inputs_of(maps, next(stream.requests(12)), 12)
    assert len({one.tobytes() for one in (*seen, *more)}) == 32
    np.testing.assert_array_equal(seen[:2], labels)
    assert instances is not None
    np.testing.assert_array_equal(instances[:2], labels)
    for one, instance in zip(seen, instances, strict=True):  # the same shapes, in other classes
        pairs = set(zip(one.ravel().tolist(), instance.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(one)) == len(np.unique(instance))
    assert style is None


# ---- The command ----


@pytest.mark.parametrize(("option", "value"), [("--clients", "0"), ("--rate", "x"), ("--protocols", "ftp")])
def test_a_wrong_list_is_refused_with_its_value(option: str, value: str) -> None:
    result = CliRunner().invoke(main, [option, value])
    assert result.exit_code == 2
    assert f"'{value}'" in result.output


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_a_short_run_through_the_real_server(tmp_path: Path) -> None:
    weights, out = tmp_path / "tiny.safetensors", tmp_path / "rows.json"
    save(weights, seeded_generator(TINY))
    random = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(random.integers(0, 8, (8, 8), dtype=np.uint8)).save(tmp_path / f"{k}.png")
    files = ["--weights", weights, "--labels", tmp_path, "--json", out]
    load = ["--threads", "1", "--clients", "1,2", "--batch", "2", "--rate", "0.5", "--seconds", "0.2", "--windows", "4"]
    load += ["--rounds", "2"]
    command = [sys.executable, "-m", "benchmarks.server", *map(str, files), *load]
    done = subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert "share" in done.stdout
    report = json.loads(out.read_text())
    assert report["machine"]["cores"] >= 1
    closed = {(row["protocol"], row["clients"], row["batch"]): row for row in report["closed"]}
    assert set(closed) == {(protocol, clients, 2) for protocol in ("grpc", "http") for clients in (1, 2)}
    for row in closed.values():
        assert row["requests"] > 0
        assert row["images_s"] > 0
        assert row["engine_images_s"] > 0
        assert row["p50_s"] <= row["p90_s"] <= row["p99_s"]
        assert 2 <= row["engine_batch"] <= 2 * row["clients"]
        assert row["ratio"] == pytest.approx(row["busy"] / row["slowdown"])
        assert row["cached_maps"] == 0
    for row in report["open"]:
        assert row["requests"] > 0
        assert row["refused"] == 0
        assert row["p50_s"] <= row["p99_s"]
