"""What dies or hangs under `spade serve`, what its clients see, and that the next answer is the same as before."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from memory_cgroup import memory_cgroup
from served import FREE_PORTS, blocks, left_behind, png, wait_until
from websockets.sync.client import connect

from serving.client.client import Client, ServerError
from serving.gateway.pair import Pair, serve_pair
from serving.supervisor.limits import Limits
from serving.supervisor.processes import arguments_of, processes_of_group
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions

LABELS = blocks(1, size=64, classes=8)
INSTANCES = LABELS.astype(np.int32)


@pytest.fixture(scope="module")
def pair(tiny_weights: Path) -> Iterator[Pair]:
    """A pair of its own: other tests must not meet its faults."""
    model = ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1)
    with serve_pair(ServeOptions(model, **FREE_PORTS), limits=Limits(settled_s=0.0)) as running:
        yield running
    assert left_behind(running.log.parent.name) == []


def model_process(pair: Pair, model: str) -> int:
    found = [
        process.pid
        for process in processes_of_group(pair.triton.process.pid)
        if f"/{model}/" in " ".join(arguments_of(process.pid)[:2])
    ]
    assert found, model
    return found[0]


def victim(pair: Pair, name: str) -> int:
    match name:
        case "triton":
            return pair.triton.process.pid
        case "gateway":
            return pair.gateway.pid
    return model_process(pair, name)


class Load:
    """A client that asks over and over. The images must stay what they were."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers = 0
        self.errors: list[ServerError] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        wait_until(lambda: self.answers > 2, "the first answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Client(self._url, timeout_s=60) as client:
            expected = client.synthesize(LABELS, INSTANCES).images
            while not self._stop.is_set():
                try:
                    np.testing.assert_array_equal(client.synthesize(LABELS, INSTANCES).images, expected)
                    self.answers += 1
                except ServerError as error:
                    self.errors.append(error)
                    time.sleep(0.05)


def test_every_door_waits_for_the_next_triton(pair: Pair) -> None:
    """The model is asked for at most once a second, so an old answer must do while Triton is away."""
    files = {"label_map": png(LABELS[0]), "instance_map": png(LABELS[0])}

    def post() -> bytes:
        return httpx.post(f"{pair.http_url}/v1/synthesize", files=files, timeout=60).raise_for_status().content

    expected = post()
    time.sleep(1.1)
    os.kill(victim(pair, "triton"), signal.SIGKILL)
    wait_until(lambda: not pair.status.status.ready, "the fault to be noticed")
    with connect(f"ws://127.0.0.1:{pair.options.http_port}/v1/live") as live:
        live.send(json.dumps({"type": "hello"}))
        assert json.loads(live.recv(60))["type"] == "welcome"
    httpx.get(f"{pair.http_url}/v1/model", timeout=60).raise_for_status()
    assert post() == expected


@pytest.mark.parametrize(
    ("name", "number", "reason"),
    [
        ("spade", signal.SIGKILL, "dead"),
        ("spade", signal.SIGSTOP, "hung"),
        ("spade_image", signal.SIGKILL, "dead"),
        ("spade_image", signal.SIGSTOP, "hung"),
        ("triton", signal.SIGKILL, "dead"),
        ("triton", signal.SIGSTOP, "hung"),
        ("gateway", signal.SIGKILL, "dead"),
        ("gateway", signal.SIGSTOP, "hung"),
    ],
)
def test_what_dies_or_hangs_is_replaced_and_clients_may_try_again(
    pair: Pair, name: str, number: signal.Signals, reason: str
) -> None:
    ward = "gateway" if name == "gateway" else "triton"

    def restarts() -> int:
        return pair.status.status.restarts.get((ward, reason), 0)

    before = restarts()
    with Load(pair.grpc_url) as load:
        began = time.monotonic()
        os.kill(victim(pair, name), number)
        wait_until(lambda: restarts() > before, "the replacement")
        noticed = time.monotonic() - began
        answers = load.answers
        wait_until(lambda: load.answers > answers + 3, "answers again")
    print(f"{name} {number.name}: noticed after {noticed:.2f} s, good after {time.monotonic() - began:.2f} s")
    assert restarts() == before + 1
    wait_until(lambda: pair.status.status.ready, "readiness")
    if ward == "triton":
        assert load.errors == []  # what was accepted is sent again
    assert all(error.retryable for error in load.errors), [(str(error), error.status) for error in load.errors]
    pair.check()


def test_the_kernel_kills_the_engine_for_memory_and_no_request_is_lost(pair: Pair) -> None:
    """Out of memory, not merely over the supervisor's bound: the limit of a cgroup, as a container has one."""
    before = pair.status.status.restarts.get(("triton", "dead"), 0)
    with memory_cgroup(256 << 10) as (add, kills):
        with Load(pair.grpc_url) as load:
            add(model_process(pair, "spade"))
            wait_until(kills, "the kernel to end the engine")
            wait_until(lambda: pair.status.status.restarts.get(("triton", "dead"), 0) > before, "the replacement")
            answers = load.answers
            wait_until(lambda: load.answers > answers + 3, "answers again")
        assert kills() == 1
    assert load.errors == []
    wait_until(lambda: pair.status.status.ready, "readiness")
    pair.check()
