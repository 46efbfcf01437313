"""Two servers on machines of their own behind the shipped HAProxy: one is drained and one is killed under load.

The slowest test of a fault (three starts of a server), since nothing smaller shows what a fleet loses.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import hosts
import psutil
import pytest
from hosts import Host
from prometheus_tools import ROOT, tool
from proxy_load import CLIENTS
from served import wait_until

from serving.triton.run_directory import run_directory

# What a client sees of an answer that had begun to pass when its server was killed: no proxy can take that back.
BEGUN = ("without sending complete message body", "Stream removed (Data frame with END_STREAM flag received)")
CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
# `option httplog` ends each line's numbers with TERMINATION ACTIVE/FRONT/BACK/SERVER/RETRIES; + is another server.
_LOGGED = re.compile(r" (?P<backend>http|grpc)/(?P<server>[\w-]+) .* \d+/\d+/\d+/\d+/\+?(?P<retries>\d+) ")


class Lines:
    """What a process prints, line by line as it comes."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._thread = threading.Thread(target=lambda: self.lines.extend(stream))
        self._thread.start()

    def wait_for(self, text: str, seen: int = 0) -> None:
        """Wait for a line with `text` after the first `seen` lines."""
        wait_until(lambda: any(text in line for line in self.lines[seen:]), text, 120)

    def join(self) -> None:
        self._thread.join()


@contextlib.contextmanager
def running(host: Host, *command: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Lines]]:
    """A command on a host, ended with the block."""
    with subprocess.Popen(
        [*host.enter, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    ) as process:
        assert process.stdout is not None
        lines = Lines(process.stdout)
        try:
            yield process, lines
        finally:
            process.terminate()
            process.wait(120)
            lines.join()
            print(*lines.lines[-20:], sep="")


def spade_serve(host: Host, weights: Path) -> contextlib.AbstractContextManager[tuple[subprocess.Popen[str], Lines]]:
    options = ["--weights", str(weights), "--threads", "1", "--decoders", "1", "--host", host.address, "--without-keys"]
    return running(host, sys.executable, "-m", "serving.cli", "serve", *options)


@contextlib.contextmanager
def haproxy(front: Host, one: Host, two: Host) -> Iterator[Lines]:
    """The shipped configuration before two servers."""
    addresses = {"SPADE_BIND": front.address, "SPADE_1": one.address, "SPADE_2": two.address}
    libraries = {"LD_LIBRARY_PATH": ":".join(map(str, Path(sys.prefix, "debian/usr/lib").glob("*-linux-gnu")))}
    with running(front, tool("haproxy"), "-db", "-f", str(CONFIG), **addresses, **libraries) as (process, lines):
        yield lines
        assert process.poll() is None


@contextlib.contextmanager
def load(front: Host) -> Iterator[Lines]:
    script = Path(__file__).with_name("proxy_load.py")
    paths = os.pathsep.join((str(script.parents[1]), str(ROOT)))
    command = [sys.executable, str(script), front.address]
    with running(front, *command, PYTHONPATH=paths) as (process, lines):
        yield lines
        assert process.stdin is not None
        process.stdin.close()
        process.wait(120)


def more_answers(lines: Lines, count: int = 8) -> None:
    """Wait until each door has given `count` answers more."""

    def doors() -> Counter[str]:
        return Counter(json.loads(line)["door"] for line in list(lines.lines) if line.startswith("{"))

    before = doors()
    wait_until(lambda: all(doors()[door] >= before[door] + count for door in ("http", "grpc")), "answers", 120)


@pytest.mark.parametrize("machines", ["namespaces", "loopback"])
def test_a_drained_and_a_killed_server_lose_no_request_but_a_begun_answer(machines: str, tiny_weights: Path) -> None:
    refused = hosts.refusal()
    if machines == "namespaces" and refused:
        pytest.skip(f"network namespaces are refused ({refused}): two addresses of loopback stand for machines")
    if machines == "loopback" and not refused:
        pytest.skip("network namespaces are allowed here, and tested")
    with (
        getattr(hosts, machines)() as (front, one, two),
        spade_serve(one, tiny_weights) as (first, first_lines),
        spade_serve(two, tiny_weights) as (second, second_lines),
        contextlib.ExitStack() as again,
        haproxy(front, one, two) as proxied,
    ):
        first_lines.wait_for("ready: ")
        second_lines.wait_for("ready: ")
        for server in ("spade-1", "spade-2"):
            proxied.wait_for(f"Server http/{server} is UP")
        with load(front) as answers:
            more_answers(answers)
            first.send_signal(signal.SIGTERM)  # drained
            assert first.wait(120) == 0
            more_answers(answers)
            seen = len(proxied.lines)
            again.enter_context(spade_serve(one, tiny_weights))
            proxied.wait_for("Server http/spade-1 is UP", seen)
            more_answers(answers)
            before = len(answers.lines)
            kill_all(second.pid)  # as if the machine had gone
            more_answers(answers)
    check(answers.lines, before, proxied.lines)
    with run_directory():
        pass  # sweeps what the killed server left


def kill_all(pid: int) -> None:
    """End a process and all that it started: those that answer callers first, so that none outlives what it asks."""
    server = psutil.Process(pid)
    started = server.children(recursive=True)
    gateways = [process for process in started if "serving.gateway" in process.cmdline()]
    for process in (*gateways, server, *started):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def check(answers: list[str], before: int, proxied: list[str]) -> None:
    """`before`: answers that were there when the second server was killed."""
    found = [json.loads(line) for line in answers]
    assert [line for line in found[:before] if "error" in line] == []
    cut = [line for line in found[before:] if "error" in line]
    assert [line for line in cut if not any(text in line["error"] for text in BEGUN)] == []
    assert len(cut) <= CLIENTS
    found = [line for line in found if line not in cut]
    images = {door: {line["image"] for line in found if line["door"] == door} for door in ("http", "grpc", "stream")}
    assert {door: len(different) for door, different in images.items()} == {"http": 1, "grpc": 1, "stream": 1}
    assert images["grpc"] == images["stream"]
    logged = [match for line in proxied if (match := _LOGGED.search(line))]
    drawn = {(match["backend"], match["server"]) for match in logged}
    assert drawn >= {(door, server) for door in ("http", "grpc") for server in ("spade-1", "spade-2")}
    assert any(int(match["retries"]) for match in logged), "no request was under way when a server went"
    print(f"{len(found)} answers, longest {max(line['seconds'] for line in found):.1f} s")
