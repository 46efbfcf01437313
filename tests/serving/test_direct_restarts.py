"""`spade serve --direct`: the supervisor's restarts stand in Triton's own metrics."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from pathlib import Path

from served import FREE_PORTS, left_behind, wait_until

from serving.supervisor.limits import Limits
from serving.supervisor.processes import arguments_of, processes_of_group, read_process
from serving.supervisor.supervised import SupervisedTriton, supervised
from serving.supervisor.triton import _Watch
from serving.supervisor.ward import Fault
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions, serve

_SAMPLE = re.compile(r'^spade_restarts_total\{part="triton",reason="(\w+)"\} (\d+)$', re.MULTILINE)


def restarts(running: SupervisedTriton) -> dict[str, int]:
    """The samples of the scrape; empty where Triton does not answer."""
    try:
        with urllib.request.urlopen(running.server.metrics_url, timeout=10) as answer:
            return {reason: int(count) for reason, count in _SAMPLE.findall(answer.read().decode())}
    except OSError:
        return {}


def engine_process(running: SupervisedTriton) -> int:
    members = processes_of_group(running.server.process.pid)
    return next(one.pid for one in members if "/spade/" in " ".join(arguments_of(one.pid)[:2]))


def test_an_end_between_two_looks_is_seen(tiny_weights: Path) -> None:
    """The members are read each second. A process that ends just before must not drop out unseen."""
    options = ServeOptions(ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1), **FREE_PORTS)
    with serve(options) as server:
        watch = _Watch(server, Limits(), replaced=False)
        try:
            ending = next(pid for pid, model in watch._stubs.values() if model == "spade_image")
            os.kill(ending, signal.SIGKILL)
            wait_until(lambda: (now := read_process(ending)) is None or now.ended, "the end")
            watch._find_members()
            fault = watch.look()
        finally:
            watch.close()
    assert fault == Fault("dead", f"process {ending} of model 'spade_image' ended")


def test_restarts_are_counted_in_the_scrape(tiny_weights: Path) -> None:
    options = ServeOptions(ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1), **FREE_PORTS)
    none = dict.fromkeys(("dead", "hung", "wrong", "failing", "memory", "descriptors"), 0)
    with supervised(options, limits=Limits(settled_s=0.0)) as running:
        wait_until(lambda: restarts(running) == none, "zeros, so that the first restart is an increase")
        for count in (1, 2):
            os.kill(engine_process(running), signal.SIGKILL)
            wait_until(lambda count=count: restarts(running) == none | {"dead": count}, "the count", 180)  # type: ignore[misc]
            wait_until(lambda: running.status.status.ready and running.server.process.poll() is None, "readiness", 180)
        run = running.log.parent.name
    assert left_behind(run) == []
