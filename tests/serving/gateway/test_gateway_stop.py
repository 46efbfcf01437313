"""The processes of `spade serve` start side by side, and end without waiting for an interpreter's own end."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from served import FREE_PORTS, blocks, children, left_behind, wait_until

from serving.client.client import Client
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


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_readyz_tells_proxies_of_the_end_while_the_doors_are_open(tiny_weights: Path) -> None:
    model, labels = ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1), blocks(1, size=64, classes=8)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        pair = stack.enter_context(serve_pair(ServeOptions(model, **FREE_PORTS)))
        with Client(pair.grpc_url) as client:
            before = client.synthesize(labels, labels.astype(np.int32)).images
            assert status_of(f"{pair.http_url}/readyz") == 200
            end = pool.submit(stack.pop_all().close)
            wait_until(lambda: status_of(f"{pair.http_url}/readyz") == 503, "/readyz to answer 503", 5)
            assert status_of(f"{pair.http_url}/v2/health/ready") == 503
            with contextlib.closing(triton_grpc.InferenceServerClient(pair.grpc_url.removeprefix("grpc://"))) as other:
                assert other.is_server_live()
                assert not other.is_server_ready()
            np.testing.assert_array_equal(client.synthesize(labels, labels.astype(np.int32)).images, before)
        end.result(60)
