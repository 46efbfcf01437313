"""Requests to model `spade` that are encoded ahead of time, and connections that send them.

The load shares its cores with the server, so all work that can happen before the first request happens there.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy.typing as npt
import tritonclient.http as triton_http
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import np_to_triton_dtype

from serving.client.connection import HTTP_STATUSES, ServerError, infer_input
from serving.protocol import RequestTimings, read_timings

Tensors = dict[str, npt.NDArray[Any]]
Exchange = Callable[[Any], RequestTimings]
"""Sends an encoded request and waits for its answer. Raises ServerError."""

TIMEOUT_S = 300.0
_UNSENT = 10**15  # stands for the time of sending, in microseconds since 1970; has as many digits as today's time


def encode_grpc(tensors: Tensors) -> bytes:
    """A serialised ModelInferRequest without the time of sending."""
    message = service_pb2.ModelInferRequest(model_name="spade")
    for name, tensor in tensors.items():
        message.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        message.raw_input_contents.append(tensor.tobytes())
    encoded: bytes = message.SerializeToString()
    return encoded


@contextlib.contextmanager
def connect_grpc(url: str) -> Iterator[Exchange]:
    limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(urlsplit(url).netloc, limits) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, None)

        def exchange(encoded: bytes) -> RequestTimings:
            sent = service_pb2.ModelInferRequest()
            sent.parameters["sent_unix_us"].int64_param = _now()
            try:
                # Two serialised messages, one after the other, parse as one message with the fields of both.
                answer = infer(encoded + sent.SerializeToString(), TIMEOUT_S)
            except grpc.RpcError as error:
                raise ServerError(error.details(), error.code().name.lower()) from error
            return read_timings(InferResult(service_pb2.ModelInferResponse.FromString(answer)))

        yield exchange


def encode_http(tensors: Tensors) -> tuple[bytes, int]:
    """The body of a request with `_UNSENT` as the time of sending, and the length of the body's header in bytes."""
    inputs = [infer_input(triton_http, name, tensor) for name, tensor in tensors.items()]
    return triton_http.InferenceServerClient.generate_request_body(inputs, parameters={"sent_unix_us": _UNSENT})  # type: ignore[no-any-return]


@contextlib.contextmanager
def connect_http(url: str) -> Iterator[Exchange]:
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)) as connection:

        def exchange(encoded: tuple[bytes, int]) -> RequestTimings:
            body, size = encoded
            header = body[:size].replace(str(_UNSENT).encode(), str(_now()).encode())
            lengths = {"Inference-Header-Content-Length": str(size), "Content-Length": str(len(body))}
            connection.request("POST", "/v2/models/spade/infer", (header, memoryview(body)[size:]), lengths)
            response = connection.getresponse()
            answer = response.read()
            if response.status != http.client.OK:
                status = str(response.status)
                raise ServerError(answer.decode(errors="replace"), HTTP_STATUSES.get(status, status))
            length = int(response.headers["Inference-Header-Content-Length"])
            return read_timings(triton_http.InferenceServerClient.parse_response_body(answer, header_length=length))

        yield exchange


ENCODE: dict[str, Callable[[Tensors], Any]] = {"grpc": encode_grpc, "http": encode_http}
CONNECT: dict[str, Callable[[str], AbstractContextManager[Exchange]]] = {"grpc": connect_grpc, "http": connect_http}


def _now() -> int:
    return time.time_ns() // 1000
