"""The doors of a server, as an asynchronous load generator sends through them.

A connection sends a request that is encoded beforehand: the load shares its cores with the server, so all work that can
happen before the first request happens there.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import aiohttp
import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.http as triton_http
from PIL import Image
from tritonclient.grpc import InferResult, service_pb2

from benchmarks.server.encoded import Tensors, encode_grpc
from serving.client.connection import infer_input
from serving.protocol import UNKNOWN, RequestTimings, read_timings

Outcome = Literal["ok", "refused", "timed out", "failed"]
"""`refused`: the server says that it has too much to do. `timed out`: the client or the server gave up waiting."""

_UNSENT = b"1000000000000001"  # stands for the time of sending
_NO_TIMEOUT = b"7777777777777"  # stands for parameter `timeout`; JSON takes spaces after a shorter number
_BOUNDARY = "spade-bench-5f0c2e7d41"
_MOST_INSTANCE = 65535
_NO_LIMIT = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a TCP connection for each channel, as for clients on other machines
)
_GRPC_OUTCOMES: dict[grpc.StatusCode, Outcome] = {
    grpc.StatusCode.UNAVAILABLE: "refused",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "refused",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timed out",
}
_HTTP_OUTCOMES: dict[int, Outcome] = {503: "refused", 429: "refused", 408: "timed out", 504: "timed out"}


@dataclass(frozen=True)
class Answer:
    """What came back. `timings` is None where the door tells none; `detail` is the error's text."""

    outcome: Outcome
    timings: RequestTimings | None = None
    detail: str = ""


class Connection(Protocol):
    """One client's connection. Use it on one event loop; many requests may be out at once."""

    async def send(self, encoded: Any, timeout_s: float) -> Answer:
        """Send an encoded request and wait for its answer, at most `timeout_s`."""
        ...

    async def close(self) -> None: ...


class GrpcConnection:
    """KServe v2 over gRPC. The server learns when the client gives up, by gRPC's deadline and parameter `timeout`."""

    def __init__(self, url: str) -> None:
        self._channel = grpc.aio.insecure_channel(urlsplit(url).netloc, options=_NO_LIMIT)
        self._infer = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    async def send(self, encoded: bytes, timeout_s: float) -> Answer:
        sent = service_pb2.ModelInferRequest()
        sent.parameters["sent_unix_us"].int64_param = time.time_ns() // 1000
        sent.parameters["timeout"].int64_param = round(timeout_s * 1e6)
        try:
            # Two serialised messages, one after the other, parse as one message with the fields of both.
            answer = await self._infer(encoded + sent.SerializeToString(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return Answer(_GRPC_OUTCOMES.get(error.code(), "failed"), None, error.details() or str(error.code()))
        return Answer("ok", read_timings(InferResult(service_pb2.ModelInferResponse.FromString(answer))))

    async def close(self) -> None:
        await self._channel.close()


class _Http:
    """What both HTTP doors share."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        await self._session.close()

    async def _post(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[Answer, bytes, dict[str, str]]:
        limit = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(self._url + path, data=body, headers=headers, timeout=limit) as response:
                answer = await response.read()
        except TimeoutError:
            return Answer("timed out", None, f"no answer within {timeout_s:g} s"), b"", {}
        except aiohttp.ClientError as error:
            return Answer("failed", None, str(error) or type(error).__name__), b"", {}
        if response.status != 200:
            outcome = _HTTP_OUTCOMES.get(response.status, "failed")
            return Answer(outcome, None, f"{response.status}: {answer[:300].decode(errors='replace')}"), b"", {}
        return Answer("ok"), answer, {name.lower(): value for name, value in response.headers.items()}


class HttpConnection(_Http):
    """KServe v2 over HTTP, tensors in binary."""

    async def send(self, encoded: tuple[bytes, int], timeout_s: float) -> Answer:
        body, size = encoded
        header = filled_in(body[:size], timeout_s)
        lengths = {"Inference-Header-Content-Length": str(size), "Content-Type": "application/octet-stream"}
        answer, content, headers = await self._post("/v2/models/spade/infer", header + body[size:], lengths, timeout_s)
        if answer.outcome != "ok":
            return answer
        length = int(headers["inference-header-content-length"])
        read = triton_http.InferenceServerClient.parse_response_body(content, header_length=length)
        return Answer("ok", read_timings(read))


def encode_v2(tensors: Tensors) -> tuple[bytes, int]:
    """The body of a v2 request over HTTP with `_UNSENT` and `_NO_TIMEOUT`, and the length of its JSON in bytes."""
    inputs = [infer_input(triton_http, name, tensor) for name, tensor in tensors.items()]
    parameters = {"sent_unix_us": int(_UNSENT)}
    return triton_http.InferenceServerClient.generate_request_body(  # type: ignore[no-any-return]
        inputs, parameters=parameters, timeout=int(_NO_TIMEOUT)
    )


def filled_in(header: bytes, timeout_s: float) -> bytes:
    """The JSON of a v2 request with the time of sending, now, and the client's patience. Its length stays."""
    timeout = str(round(timeout_s * 1e6)).encode().ljust(len(_NO_TIMEOUT))
    return header.replace(_UNSENT, str(time.time_ns() // 1000).encode()).replace(_NO_TIMEOUT, timeout)


class RestConnection(_Http):
    """`POST /v1/synthesize`: PNGs in, an image file out. The gateway learns when the client gives up."""

    async def send(self, encoded: RestBody, timeout_s: float) -> Answer:
        path, kind = "/v1/synthesize", "image/png"
        body = encoded.label_map
        if encoded.instance_map is None:
            path += f"?timeout={timeout_s:g}"
        else:
            fields = {"label_map": body, "instance_map": encoded.instance_map, "timeout": f"{timeout_s:g}".encode()}
            body, kind = _form(fields), f"multipart/form-data; boundary={_BOUNDARY}"
        answer, _, headers = await self._post(path, body, {"Content-Type": kind}, timeout_s)
        return answer if answer.outcome != "ok" else Answer("ok", timings_of(headers))


@dataclass(frozen=True)
class RestBody:
    """The PNGs of one request."""

    label_map: bytes
    instance_map: bytes | None


def encode_rest(tensors: Tensors) -> RestBody:
    """One label map, and its instance map, as PNGs. Raises ValueError for several maps and for large instance ids."""
    if len(tensors["labels"]) != 1:
        raise ValueError(f"[bench] expected one label map for the door rest but got {len(tensors['labels'])}")
    instances = tensors.get("instances")
    if instances is not None and instances.max() > _MOST_INSTANCE:
        raise ValueError(f"[bench] expected instance ids up to {_MOST_INSTANCE} for a PNG but got {instances.max()}")
    return RestBody(_png(tensors["labels"][0]), None if instances is None else _png(instances[0].astype(np.uint16)))


def timings_of(headers: dict[str, str]) -> RequestTimings | None:
    """The timings in the headers of an answer, whose names are in lower case; None without them."""
    named = {}
    for part in headers.get("server-timing", "").split(","):
        name, _, duration = part.strip().partition(";dur=")
        if duration:
            named[name] = float(duration) / 1e3
    if "total" not in named:
        return None
    queue, plan, codebook, convs = (named.get(name, UNKNOWN) for name in ("queue", "plan", "codebook", "convs"))
    batch = float(headers.get("x-spade-batch-size", 1))
    return RequestTimings(queue, plan, codebook, convs, named["total"], batch, UNKNOWN)


def _png(pixels: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _form(fields: dict[str, bytes]) -> bytes:
    """The body of a form. A field that is no text has a file's name."""
    parts = []
    for name, value in fields.items():
        file = "" if name == "timeout" else f'; filename="{name}.png"\r\nContent-Type: image/png'
        parts.append(f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode())
        parts.append(value + b"\r\n")
    return b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()])


@dataclass(frozen=True)
class Door:
    """A door of a server: its name, its address, how requests are encoded, and how clients connect."""

    name: str
    url: str
    encode: Callable[[Tensors], Any]
    make: Callable[[str], Connection]

    def connect(self) -> Connection:
        """A new connection. Call it on a running event loop."""
        return self.make(self.url)


_DOORS: dict[str, tuple[Callable[[Tensors], Any], Callable[[str], Connection]]] = {
    "grpc": (encode_grpc, GrpcConnection),
    "http": (encode_v2, HttpConnection),
    "rest": (encode_rest, RestConnection),
}
DOORS = tuple(_DOORS)


def door(name: str, url: str) -> Door:
    """The door called `name` at `url`."""
    encode, make = _DOORS[name]
    return Door(name, url, encode, make)


async def reachable(of: Door, encoded: Any) -> str:
    """Why a door does not answer an encoded request; empty where it does. Waits a minute at most."""
    connection = of.connect()
    try:
        answer = await connection.send(encoded, 60.0)
    finally:
        await connection.close()
    await asyncio.sleep(0)
    return "" if answer.outcome == "ok" else f"{answer.outcome}: {answer.detail}"
