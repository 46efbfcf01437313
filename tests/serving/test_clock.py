"""A jump of the clock moves nothing: waits and deadlines count by clocks that only go on."""

from __future__ import annotations

import itertools
import re
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from serving.engines.contract import Engine, Inputs
from serving.engines.timings import Timings
from serving.requests.batch import Done
from serving.requests.batcher import Batcher, Request
from serving.requests.deadlines import Deadline
from spade_core.config import PRESETS
from spade_core.types import Images

SERVING = Path(__file__).resolve().parents[2] / "serving"
DAY_S = 86_400.0


class Painter(Engine):
    name, precision, config, max_concurrent_calls = "torch", "fp32", PRESETS["demo"], 1

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        del timings
        return inputs.labels[..., None].repeat(3, axis=-1)


def test_requests_are_answered_while_the_clock_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle([0.0, DAY_S, -DAY_S, 1e9])
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before + next(jumps))
    batcher = Batcher(Painter(), max_batch=4, queue_size=100, delay_s=0.001)
    labels = np.zeros((1, 8, 8), np.uint8)
    try:
        for _ in range(20):
            answer: Future[Done | Exception] = Future()
            inputs = Inputs(labels, None, labels.astype(np.uint16), None)
            batcher.submit(Request(inputs, lambda done, _began, to=answer: to.set_result(done), Deadline(60, bool)))
            assert isinstance(answer.result(60), Done)
    finally:
        batcher.close()


def test_the_clock_on_the_wall_is_only_told_never_waited_by() -> None:
    """Who reads it: the time of an answer's making, the sending time that a metric compares, and the times of spans."""
    reads = re.compile(r"\btime\.time(_ns)?\(|datetime\.now|gmtime|localtime")
    readers = {path.relative_to(SERVING).as_posix() for path in SERVING.rglob("*.py") if reads.search(path.read_text())}
    assert readers == {
        "client/connection.py",
        "gateway/drawing.py",
        "gateway/live_requests.py",
        "gateway/openai_images.py",
        "gateway/upstream.py",
        "triton/models/spade/model.py",
        "triton/models/spade_image/model.py",
    }
