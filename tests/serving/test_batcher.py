"""The queue before the engine: requests that wait form the next batch, and every request is answered once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engines.contract import Engine, Inputs
from serving.engines.timings import Timings
from serving.requests.batch import Done
from serving.requests.batcher import Batcher, QueueFullError, Request
from serving.requests.deadlines import CancelledError, Deadline, WaitedTooLongError
from spade_core.config import PRESETS
from spade_core.types import Images


class GatedEngine(Engine):
    """Paints every pixel with its label once the gate is open, and fails where a label is 13."""

    name, precision, config = "torch", "fp32", PRESETS["demo"]

    def __init__(self, max_concurrent_calls: int = 1) -> None:
        self.max_concurrent_calls = max_concurrent_calls
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.batches: list[list[int]] = []  # the first label of each map

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        del timings
        labels = inputs.labels
        self.batches.append([int(one[0, 0]) for one in labels])
        self.started.release()
        assert self.gate.wait(60)
        if (labels == 13).any():
            raise RuntimeError("unlucky")
        return labels[..., None].repeat(3, axis=-1)


def painting(value: int, count: int = 1, size: int = 8) -> Inputs:
    labels = np.full((count, size, size), value, np.uint8)
    return Inputs(labels, None, labels.astype(np.uint16), None)


class Client:
    """Sends requests to a batcher. Every answer is a future."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher

    def send(
        self, value: int, count: int = 1, size: int = 8, timeout_s: float = 60, cancelled: bool = False
    ) -> Future[Done | Exception]:
        answer: Future[Done | Exception] = Future()
        deadline = Deadline(timeout_s, lambda: cancelled)
        self.batcher.submit(
            Request(painting(value, count, size), lambda result, _began: answer.set_result(result), deadline)
        )
        return answer


@contextmanager
def batcher(engine: GatedEngine, **options: Any) -> Iterator[Client]:
    queue = Batcher(engine, **{"max_batch": 4, "queue_size": 100, "delay_s": 0.0} | options)
    try:
        yield Client(queue)
    finally:
        engine.gate.set()
        queue.close()


def painted(answer: Future[Done | Exception]) -> list[int]:
    result = answer.result(60)
    assert isinstance(result, Done), result
    return [int(image[0, 0, 0]) for image in result.images]


def test_what_waits_while_a_batch_runs_becomes_the_next() -> None:
    engine = GatedEngine()
    with batcher(engine) as client:
        answers = [client.send(0)]
        engine.started.acquire()
        answers += [client.send(1, 2), client.send(2), client.send(3), client.send(4)]
        engine.gate.set()
        assert [painted(answer) for answer in answers] == [[0], [1, 1], [2], [3], [4]]
    assert engine.batches == [[0], [1, 1, 2, 3], [4]]


def test_an_engine_of_two_concurrent_calls_has_two_batches_under_way_and_no_more() -> None:
    engine = GatedEngine(max_concurrent_calls=2)
    with batcher(engine, delay_s=0.01) as client:
        answers = [client.send(value, 4) for value in range(5)]
        for _ in range(2):
            engine.started.acquire()
        assert not engine.started.acquire(timeout=0.1)
        engine.gate.set()
        assert [painted(answer) for answer in answers] == [[value] * 4 for value in range(5)]
    assert sorted(engine.batches) == [[value] * 4 for value in range(5)]


def test_maps_of_another_size_keep_their_places_and_run_by_themselves() -> None:
    engine = GatedEngine()
    with batcher(engine) as client:
        client.send(0)
        engine.started.acquire()
        for value, size in ((1, 8), (2, 16), (3, 8), (4, 16), (5, 8)):
            client.send(value, size=size)
    assert engine.batches == [[0], [1, 3, 5], [2, 4]]


def test_a_batch_that_is_not_full_waits_for_company() -> None:
    engine = GatedEngine()
    engine.gate.set()
    with batcher(engine, delay_s=60) as client:
        answers = [
            client.send(value) for value in range(4)
        ]  # the fourth request fills the batch, so none waits a minute
        assert [painted(answer) for answer in answers] == [[0], [1], [2], [3]]
    assert engine.batches == [[0, 1, 2, 3]]


def test_a_full_queue_refuses_by_maps_and_takes_more_later() -> None:
    engine, waiting = GatedEngine(), []
    with batcher(engine, queue_size=3, on_queue=waiting.append) as client:
        answers = [client.send(0)]
        engine.started.acquire()
        answers += [client.send(1), client.send(2)]
        with pytest.raises(QueueFullError, match=r"at most 3 label maps to wait but 2 do.*2 more; .* --queue-size"):
            client.send(3, count=2)
        answers.append(client.send(3))
        engine.gate.set()
        assert [painted(answer) for answer in answers] == [[0], [1], [2], [3]]
        assert painted(client.send(4)) == [4]
    assert max(waiting) == 3
    assert waiting[-1] == 0


def test_a_request_larger_than_the_queue_may_wait_alone() -> None:
    engine = GatedEngine()
    with batcher(engine, queue_size=1) as client:
        client.send(0)
        engine.started.acquire()
        large = client.send(1, count=4)
        engine.gate.set()
        assert painted(large) == [1] * 4


def test_a_deadline_that_the_queue_leaves_no_time_for_is_refused_at_once() -> None:
    engine = GatedEngine()
    with batcher(engine, max_batch=1) as client:
        first = client.send(0)
        engine.started.acquire()
        time.sleep(0.2)  # the first map costs at least so long
        engine.gate.set()
        painted(first)
        engine.gate.clear()
        client.send(1)
        engine.started.acquire()
        client.send(2)
        with pytest.raises(QueueFullError, match=r"at most 0\.1 s but 1 label maps wait and 1 are drawn, about \S+ s"):
            client.send(3, timeout_s=0.1)
        patient = client.send(4, timeout_s=60)
        engine.gate.set()
        assert painted(patient) == [4]


def test_the_batch_that_is_drawn_counts_for_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("serving.requests.batcher.time", SimpleNamespace(perf_counter=lambda: now[0]))
    engine = GatedEngine()
    with batcher(engine) as client:
        first = client.send(0, 4)
        engine.started.acquire()
        now[0] = 8.0  # a map costs 2 s
        engine.gate.set()
        painted(first)
        engine.gate.clear()
        client.send(1, 4)
        engine.started.acquire()
        with pytest.raises(QueueFullError, match="at most 7 s but 0 label maps wait and 4 are drawn, about 8 s"):
            client.send(2, timeout_s=7)
        now[0] += 2.0
        accepted = client.send(2, timeout_s=7)
        engine.gate.set()
        assert painted(accepted) == [2]


def test_requests_that_waited_too_long_or_whose_client_has_gone_are_dropped() -> None:
    engine = GatedEngine()
    with batcher(engine) as client:
        client.send(0)
        engine.started.acquire()
        late, gone, good = client.send(1, timeout_s=0), client.send(2, cancelled=True), client.send(3)
        engine.gate.set()
        assert painted(good) == [3]
        assert isinstance(late.result(60), WaitedTooLongError)
        assert "longer than 0 s" in str(late.result())
        assert isinstance(gone.result(60), CancelledError)
    assert engine.batches == [[0], [3]]


def test_a_request_that_breaks_the_engine_fails_alone() -> None:
    engine = GatedEngine()
    with batcher(engine) as client:
        client.send(0)
        engine.started.acquire()
        good, bad = client.send(1), client.send(13)
        engine.gate.set()
        assert painted(good) == [1]
        assert str(bad.result(60)) == "unlucky"
        assert painted(client.send(5)) == [5]


def test_an_answer_that_fails_does_not_keep_the_others_from_theirs() -> None:
    engine = GatedEngine()
    engine.gate.set()
    with batcher(engine) as client:

        def answer(result: Done | Exception, began: float) -> None:
            raise RuntimeError(f"the line is dead: {result} of {began}")

        client.batcher.submit(Request(painting(0), answer, Deadline(60, lambda: False)))
        assert painted(client.send(7)) == [7]


def test_close_answers_what_waits() -> None:
    engine = GatedEngine()
    with batcher(engine, delay_s=60) as client:
        client.send(9, 4)  # full, so it runs
        engine.started.acquire()
        waits = client.send(1)
    assert painted(waits) == [1]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([8, 16])), max_size=20), st.integers(4, 9), st.integers(1, 3)
)
def test_every_request_is_answered_once_in_batches_that_fit(
    requests: list[tuple[int, int]], max_batch: int, max_concurrent_calls: int
) -> None:
    engine = GatedEngine(max_concurrent_calls)
    with batcher(engine, max_batch=max_batch) as client:
        answers = [client.send(value % 13, count, size) for value, (count, size) in enumerate(requests)]
        engine.gate.set()
        for value, ((count, _), answer) in enumerate(zip(requests, answers, strict=True)):
            assert painted(answer) == [value % 13] * count
    assert all(len(batch) <= max_batch for batch in engine.batches)
    assert sum(map(len, engine.batches)) == sum(count for count, _ in requests)
