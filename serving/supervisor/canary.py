"""The canary: a small real request, sent again and again, whose answer must come in time and stay the same."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from serving.protocol import ModelInfo

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
_TOLERANCE = 2  # grey levels; sums in batches of another size are rounded otherwise


class CanaryError(RuntimeError):
    """The canary was answered by an error."""


class Canary:
    """Asks one server. One request is on its way at a time, and none is ever cancelled (server#7368).

    Args:
        address: of gRPC, HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._infer = self._channel.unary_unary(
            _METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        self._request: Any = None
        self._answer: Any = None
        self._sent = 0.0

    def close(self) -> None:
        self._channel.close()

    def prepare(self, limit_s: float) -> None:
        """Learn from the server which maps it takes. Raises CanaryError."""
        message = _message(_png(1, 1), None, "info")
        try:
            answer = self._infer(message, timeout=limit_s)
        except grpc.RpcError as error:
            raise CanaryError(_text(error)) from None
        self._request = canary_request(ModelInfo.from_json(_output(answer, "info")))

    @property
    def waits_s(self) -> float:
        """How long the request on its way has been; 0 where none is."""
        return 0.0 if self._answer is None else time.monotonic() - self._sent

    def send(self) -> None:
        """Send the request."""
        self._sent = time.monotonic()
        self._answer = self._infer.future(self._request)

    def receive(self) -> bytes | None:
        """The image file, once it is there. Raises CanaryError."""
        if self._answer is None or not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        try:
            response = answer.result()
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                return b""  # a full queue, or a model that is being replaced: alive, and nothing to compare
            raise CanaryError(_text(error)) from None
        return _output(response, "image")


def canary_request(info: ModelInfo) -> Any:
    """The request: a map of class 0 in the model's size."""
    blank = _png(info.height, info.width)
    return _message(blank, blank if info.instances else None, "image")


def same_image(first: bytes, second: bytes) -> bool:
    """True where two PNG files hold the same image, but for rounding."""
    if first == second:
        return True
    import numpy as np
    from PIL import Image

    a, b = (np.asarray(Image.open(io.BytesIO(file))).astype(np.int16) for file in (first, second))
    return a.shape == b.shape and int(np.abs(a - b).max()) <= _TOLERANCE


def _message(label_map: bytes, instance_map: bytes | None, output: str) -> Any:
    message = pb.ModelInferRequest(model_name="spade_image")
    for name, file in (("label_map", label_map), ("instance_map", instance_map)):
        if file is not None:
            message.inputs.add(name=name, datatype="UINT8", shape=[1, len(file)])
            message.raw_input_contents.append(file)
    message.outputs.add(name=output)
    return message


def _png(height: int, width: int) -> bytes:
    """A grey PNG of zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(height * (width + 1)))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _output(answer: Any, name: str) -> bytes:
    index = [output.name for output in answer.outputs].index(name)
    return bytes(answer.raw_output_contents[index])


def _text(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"
