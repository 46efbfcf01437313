"""The pre-encoded requests of the server benchmark, sent to a real server."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from served import blocks

from benchmarks.server.encoded import CONNECT, ENCODE, Tensors
from serving.client.client import ServerError
from serving.triton.server import Server

PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http"])


def url(server: Server, protocol: str) -> str:
    return server.grpc_url if protocol == "grpc" else server.http_url


def maps(**changed: Any) -> Tensors:
    labels = blocks(1, count=2, size=64, classes=8)
    return {"labels": labels, "instances": labels.astype(np.int32)} | changed


@PROTOCOLS
def test_an_encoded_request_is_answered_again_and_again(tiny_server: Server, protocol: str) -> None:
    encoded = ENCODE[protocol](maps())
    with CONNECT[protocol](url(tiny_server, protocol)) as exchange:
        for _ in range(2):
            began = time.time()
            timings = exchange(encoded)
            assert timings is not None
            assert timings.batch_size == 2
            assert 0 <= timings.queue_s <= time.time() - began  # since the exchange, not since the encoding


@PROTOCOLS
def test_a_bad_request_is_an_error_with_the_servers_words(tiny_server: Server, protocol: str) -> None:
    encoded = ENCODE[protocol](maps(labels=np.full((2, 64, 64), 99, np.uint8)))
    with CONNECT[protocol](url(tiny_server, protocol)) as exchange, pytest.raises(ServerError, match="got 99 in 8192"):
        exchange(encoded)
