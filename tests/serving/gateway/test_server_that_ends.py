"""A Triton that stops before its gateway: requests are sent again, or refused so that another server may be asked."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from fake_triton import IMAGE, Triton
from served import blocks, left_behind, png, wait_until

from serving.client.client import Client, ServerError
from serving.gateway.upstream import Upstream, UpstreamError

TENSORS = {"label_map": np.zeros((1, 4), np.uint8)}
STOPPING = (grpc.StatusCode.INTERNAL, "in ensemble 'spade', Server not ready")
UNLOADED = (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'spade' has no available versions")
LABELS = blocks(1, count=4, size=64, classes=8)


def ask(faults: list[tuple[grpc.StatusCode, str]], before: Callable[[Upstream, Triton], None]) -> bytes:
    async def check() -> bytes:
        async with Triton() as triton:
            triton.go.set()
            triton.faults = list(faults)
            upstream = triton.upstream()
            before(upstream, triton)
            try:
                return (await upstream.infer("spade_image", TENSORS)).as_numpy("image").tobytes()
            finally:
                await upstream.close()

    return asyncio.run(check())


@pytest.mark.parametrize("fault", [STOPPING, UNLOADED])
def test_a_request_that_meets_a_triton_that_stops_is_sent_again(fault: tuple[grpc.StatusCode, str]) -> None:
    assert ask([fault], lambda *_: None) == IMAGE


@pytest.mark.parametrize("fault", [STOPPING, UNLOADED, (grpc.StatusCode.INTERNAL, "Stub process is not healthy.")])
def test_what_fails_twice_may_be_tried_again_later(fault: tuple[grpc.StatusCode, str]) -> None:
    with pytest.raises(UpstreamError, match=fault[1]) as told:
        ask([fault, fault], lambda *_: None)
    assert told.value.code == grpc.StatusCode.UNAVAILABLE


def test_nobody_waits_for_the_next_triton_when_the_supervisor_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def orphan(_: Upstream, triton: Triton) -> None:
        triton.ready = False
        monkeypatch.setattr(os, "getppid", lambda: 1)

    with pytest.raises(UpstreamError, match="the server is stopping; ask another server") as told:
        ask([STOPPING], orphan)
    assert told.value.code == grpc.StatusCode.UNAVAILABLE


class Serving:
    """`spade serve` on ports that it picks, its gateway included."""

    def __init__(self, weights: Path, folder: Path) -> None:
        self._told = folder / "stderr.txt"
        options = ["--weights", str(weights), "--precision", "fp32", "--threads", "1", "--decoders", "1"]
        ports = ["--http-port=0", "--grpc-port=0", "--metrics-port=0", f"--log-file={folder / 'triton.log'}"]
        with self._told.open("wb") as output:
            command = [sys.executable, "-m", "serving.cli", "serve", *options, *ports]
            self.process = subprocess.Popen(command, stderr=output)
        wait_until(lambda: "ready: " in self.lines or self.process.poll() is not None, "readiness", 120)

    @property
    def lines(self) -> str:
        return self._told.read_text()

    @property
    def urls(self) -> list[str]:
        return self.lines.split("ready: ")[1].split()[:2]


def test_a_killed_supervisor_is_told_in_words_that_let_clients_ask_elsewhere(
    tiny_weights: Path, tmp_path: Path
) -> None:
    """Triton and the gateway then end by themselves, in whichever order."""
    serving = Serving(tiny_weights, tmp_path)
    answered, gone = threading.Semaphore(0), threading.Event()
    wrong: list[tuple[object, str]] = []
    files = {"label_map": png(LABELS[0]), "instance_map": png(LABELS[0])}
    grpc_url, http_url = serving.urls

    def post() -> None:
        while not gone.is_set():
            try:
                answer = httpx.post(f"{http_url}/v1/synthesize", files=files, timeout=60)
            except httpx.TransportError:  # the door is shut
                return
            if answer.status_code not in (200, 503):
                wrong.append((answer.status_code, answer.text))
            answered.release()

    def call() -> None:
        with Client(grpc_url, timeout_s=60) as client:
            while not gone.is_set():
                try:
                    client.synthesize(LABELS, LABELS.astype(np.int32))
                except ServerError as error:
                    if error.status not in ("unavailable", "cancelled"):
                        wrong.append((error.status, str(error)))
                    if "no connection" in str(error):
                        return
                answered.release()

    try:
        with ThreadPoolExecutor(24) as pool:
            asking = [pool.submit(ask) for _ in range(12) for ask in (post, call)]
            for _ in range(48):
                assert answered.acquire(timeout=60)
            os.kill(serving.process.pid, signal.SIGKILL)
            assert not wait(asking, 60).not_done, "the doors stay open"
    finally:
        gone.set()
        serving.process.kill()
        serving.process.wait()
    assert wrong == []
    run = next(
        word for word in (tmp_path / "triton.log").read_text().replace("/", " ").split() if "spade-serve-" in word
    )
    wait_until(lambda: not [entry for entry in left_behind(run) if "tritonserver" in entry], "the end of Triton")
