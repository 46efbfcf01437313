"""Clients that die, stall, send half a request or never read: the others do not notice, and nothing is left of them."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from served import FREE_PORTS, blocks, children, left_behind, wait_until

from serving.client.client import Client
from serving.gateway.pair import Pair, serve_pair
from serving.supervisor.processes import descriptors_of
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions

LABELS = blocks(1, size=64, classes=8)
INSTANCES = LABELS.astype(np.int32)
HEAD = b"POST /v2/models/spade/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture(scope="module")
def pair(tiny_weights: Path) -> Iterator[Pair]:
    model = ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1)
    with serve_pair(ServeOptions(model, **FREE_PORTS)) as running:
        yield running


def connected(pair: Pair) -> socket.socket:
    return socket.create_connection(("127.0.0.1", pair.options.http_port), timeout=60)


def answers(pair: Pair) -> None:
    with Client(pair.grpc_url) as client:
        assert client.synthesize(LABELS, INSTANCES).images.shape == (1, 64, 64, 3)
    assert pair.status.status.restarts == {}


@pytest.mark.parametrize("sent", [b"", b"PO", HEAD, HEAD + b'{"inputs": [', b"\x16\x03\x01\x02\x00" + bytes(64)])
@pytest.mark.parametrize("end", ["close", "reset", "half"])
def test_clients_that_stop_in_the_middle_leave_nothing(pair: Pair, sent: bytes, end: str) -> None:
    answers(pair)
    before = descriptors_of(pair.gateway.pid)
    stopped = [connected(pair) for _ in range(20)]
    for one in stopped:
        one.sendall(sent)
    answers(pair)
    for one in stopped:
        match end:
            case "reset":
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "half":
                with contextlib.suppress(OSError):  # the server may have closed it already
                    one.shutdown(socket.SHUT_WR)
        one.close()
    wait_until(lambda: descriptors_of(pair.gateway.pid) <= before + 2, "the end of the connections")
    answers(pair)


def test_a_client_that_never_reads_holds_nobody_up(pair: Pair) -> None:
    request = b"GET /v2/models/spade/config HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(pair) as deaf:
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100_000):
                deaf.send(request)
        answers(pair)
    answers(pair)


def test_a_gateway_out_of_descriptors_answers_again_when_it_has_some(pair: Pair) -> None:
    answers(pair)
    pid = pair.gateway.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = descriptors_of(pid) + 8
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        held = [connected(pair) for _ in range(40)]  # the kernel takes them; the gateway cannot accept all
        for one in held:
            one.close()
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    answers(pair)


def spade_serve(weights: Path, *more: str) -> subprocess.Popen[str]:
    arguments = ["--weights", str(weights), "--threads", "1", "--decoders", "1", *more]
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command = [sys.executable, "-m", "serving.cli", "serve", *arguments, *ports]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ready_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return next(line for line in process.stderr if line.startswith("ready: "))


@pytest.mark.parametrize("doors", [[], ["--direct"]], ids=["gateway", "direct"])
def test_sigterm_with_idle_connections_ends_cleanly(tiny_weights: Path, doors: list[str]) -> None:
    """Triton by itself waits for an idle connection until its time is up, and ends with status 1."""
    with spade_serve(tiny_weights, *doors) as process:
        port = int(ready_line(process).split("http://127.0.0.1:")[1].split()[0])
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b""
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
        idle.close()
    assert process.returncode == 0, rest
    assert "every accepted request was answered" in rest


def test_sigkill_of_spade_serve_leaves_no_process(tiny_weights: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    with spade_serve(tiny_weights, "--log-file", str(log)) as process:
        ready_line(process)
        run = next(word for word in log.read_text().split() if "spade-serve-" in word)
        name = run[run.index("spade-serve-") :][: len("spade-serve-12345678")]
        started = children(process.pid)
        assert len(left_behind(name)) > 2
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    wait_until(
        lambda: not [entry for entry in left_behind(name) if "/bin/" in entry or "stub" in entry], "Triton's end"
    )
    wait_until(lambda: not [pid for pid in started if _alive(pid)], "the gateway's end")


def _alive(pid: int) -> bool:
    try:
        return "serving.gateway" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
