"""The doors that are measured: for each protocol, how a request is encoded and sent to the gateway and to Triton."""

from __future__ import annotations

import contextlib
import http.client
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tritonclient.http as triton_http
from PIL import Image

from benchmarks.common.stream import Inputs
from benchmarks.server.encoded import CONNECT, ENCODE, TIMEOUT_S
from export.feeds import graph_inputs
from serving.client.connection import infer_input
from serving.gateway.pair import Pair

Exchange = Callable[[Any], Any]
"""Sends an encoded request and waits for its answer."""


@dataclass(frozen=True)
class Door:
    """One way in.

    Attributes:
        encode: the inputs of a request -> what is sent.
        connect: a connection, by its address.
        address: of the door, in a running pair.
    """

    encode: Callable[[Inputs], Any]
    connect: Callable[[str], AbstractContextManager[Exchange]]
    address: Callable[[Pair], str]


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _rest_form(inputs: Inputs) -> tuple[bytes, str]:
    """A form of /v1/synthesize, and its type."""
    labels, instances, _ = inputs
    files = {"label_map": labels[0]} | ({} if instances is None else {"instance_map": instances[0].astype(np.uint16)})
    head = '--b\r\nContent-Disposition: form-data; name="{}"; filename="map.png"\r\n\r\n'
    parts = [head.format(name).encode() + _png(pixels) + b"\r\n" for name, pixels in files.items()]
    return b"".join([*parts, b"--b--\r\n"]), "multipart/form-data; boundary=b"


@contextlib.contextmanager
def _connect_rest(url: str) -> Iterator[Exchange]:
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)) as connection:

        def exchange(encoded: tuple[bytes, str]) -> None:
            body, kind = encoded
            connection.request("POST", "/v1/synthesize", body, {"Content-Type": kind})
            _read(connection)

        yield exchange


def _spade_image(inputs: Inputs) -> tuple[bytes, int]:
    """The body of a request to `spade_image` over Triton's HTTP, and the length of its header."""
    labels, instances, _ = inputs
    files = {"label_map": labels[0]} | ({} if instances is None else {"instance_map": instances[0].astype(np.uint16)})
    tensors = {name: np.frombuffer(_png(pixels), np.uint8)[None] for name, pixels in files.items()}
    sent = [infer_input(triton_http, name, tensor) for name, tensor in tensors.items()]
    return triton_http.InferenceServerClient.generate_request_body(sent)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _connect_spade_image(url: str) -> Iterator[Exchange]:
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)) as connection:

        def exchange(encoded: tuple[bytes, int]) -> None:
            body, size = encoded
            headers = {"Inference-Header-Content-Length": str(size)}
            connection.request("POST", "/v2/models/spade_image/infer", body, headers)
            _read(connection)

        yield exchange


def _read(connection: http.client.HTTPConnection) -> None:
    response = connection.getresponse()
    body = response.read()
    if response.status != http.client.OK:
        raise RuntimeError(f"[benchmark] expected an image but got {response.status}: {body[:300]!r}")


def _tensors(protocol: str) -> Callable[[Inputs], Any]:
    return lambda inputs: ENCODE[protocol](graph_inputs(*inputs))


DOORS: dict[str, tuple[Door, Door]] = {
    "grpc": (
        Door(_tensors("grpc"), CONNECT["grpc"], lambda pair: pair.grpc_url),
        Door(_tensors("grpc"), CONNECT["grpc"], lambda pair: pair.triton.grpc_url),
    ),
    "http": (
        Door(_tensors("http"), CONNECT["http"], lambda pair: pair.http_url),
        Door(_tensors("http"), CONNECT["http"], lambda pair: pair.triton.http_url),
    ),
    "rest": (
        Door(_rest_form, _connect_rest, lambda pair: pair.http_url),
        Door(_spade_image, _connect_spade_image, lambda pair: pair.triton.http_url),
    ),
}
"""By name: the gateway's door, and Triton's own for the same work. `rest` is /v1/synthesize beside `spade_image`."""
