"""The processes of `spade serve` start side by side, and end without waiting for an interpreter's own end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from served import FREE_PORTS, children, left_behind, wait_until

from serving.gateway.pair import serve_pair
from serving.supervisor.processes import arguments_of
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeError, ServeOptions


def gateways() -> list[int]:
    """The gateways among this process's children."""
    return [pid for pid in children(os.getpid()) if "serving.gateway" in " ".join(arguments_of(pid))]


def test_the_gateway_starts_beside_triton_and_the_end_unloads_nothing(tiny_weights: Path, tmp_path: Path) -> None:
    model = ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1)
    log = tmp_path / "triton.log"
    before = set(gateways())
    beside = []

    def report(text: str) -> None:
        if text.startswith("loading"):
            beside.append(set(gateways()) - before)

    with serve_pair(ServeOptions(model, **FREE_PORTS, log_file=log), report) as pair:
        assert {pair.gateway.pid} in beside
        run = next(word for word in log.read_text().split() if "spade-serve-" in word)
    assert pair.unclean_ending() is None
    wait_until(lambda: set(gateways()) == before, "every gateway to end")
    text = log.read_text()
    assert "successfully loaded 'spade'" in text
    assert "unloaded" not in text
    assert "Signal (15)" not in text
    assert left_behind(run[run.index("spade-serve-") :].split("/")[0]) == []


def test_no_gateway_is_left_where_triton_does_not_start(tiny_weights: Path) -> None:
    before = set(gateways())
    model = ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1)
    with (
        pytest.raises(ServeError, match=r"expected ready models within 0\.01 s"),
        serve_pair(ServeOptions(model, **FREE_PORTS, start_timeout_s=0.01)),
    ):
        pass
    # A warden (serving/triton/warden.py) shows the gateway's arguments until it becomes itself, and then ends.
    wait_until(lambda: set(gateways()) == before, "every gateway to end")
