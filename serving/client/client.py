"""A client of a running server, over gRPC or HTTP."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.requests.images import pad_files
from serving.triton.protocol import MODELS, RequestTimings, read_timings
from spade_core.types import Images, Instances, Labels, Style

_NO_ID = "[request id: <id_unknown>] "  # Triton's prefix for requests without an id; we send no ids
_PORTS = {"grpc": 8001, "http": 8000}
_STOPPING = "has no available versions"  # Triton's text for a model that only answers what it accepted
_NO_INFERENCE = "405"  # status of Triton's metrics port for a request to infer
_HUNG_UP = r"failed to connect .*Socket closed"  # gRPC's message where the other side speaks no gRPC
_NO_CONNECTION = ("failed to connect", "connection refused", "name or service not known", "dns resolution failed")


class ServerError(RuntimeError):
    """An error of the server, in the server's own words.

    Attributes:
        status: gRPC's name of the error in lower case, over both protocols: `invalid_argument`, `unavailable`, ..
    """

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later: a full queue, a long wait, a server that stops or starts."""
        return self.status == "unavailable"


@dataclass(frozen=True)
class Result:
    """Images uint8 [N, H, W, 3], and the timings of their batch."""

    images: Images
    timings: RequestTimings


@dataclass(frozen=True)
class EncodedResult:
    """Image files, one for each map, and the timings of their batch, without decoding and encoding."""

    images: list[bytes]
    timings: RequestTimings


class Client:
    """A connection to `grpc://HOST:PORT` or `http://HOST:PORT`. A context manager. Use one client a thread.

    Args:
        url: address of the server. The default ports are 8001 for gRPC and 8000 for HTTP.
        timeout_s: longest wait for one answer.
    """

    def __init__(self, url: str, timeout_s: float = 300.0) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._protocol, address = _split(url)
        self._api: Any = triton_grpc if self._protocol == "grpc" else triton_http
        # Over HTTP, the connection itself has the limit.
        self._limit: dict[str, Any] = {"client_timeout": timeout_s} if self._protocol == "grpc" else {}
        self._connection: Any = (
            triton_grpc.InferenceServerClient(address)
            if self._protocol == "grpc"
            else triton_http.InferenceServerClient(address, connection_timeout=timeout_s, network_timeout=timeout_s)
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def ready(self) -> bool:
        """True where the server answers and both models take requests."""
        try:
            return all(self._connection.is_model_ready(model, **self._limit) for model in MODELS)
        except (InferenceServerException, OSError, HTTPException):
            return False

    def check_ready(self) -> None:
        """Raises ServerError where `ready` is False."""
        if not self.ready():
            raise ServerError(
                f"[client] expected a server with ready models at {self.url} but got none; start one with "
                "`spade serve`, or check host, port and protocol (gRPC and HTTP have a port each)",
                "unavailable",
            )

    def synthesize(
        self,
        labels: Labels,
        instances: Instances | None = None,
        style: Style | None = None,
        seed: int | npt.NDArray[np.int64] | None = None,
    ) -> Result:
        """Label maps [N, H, W] -> images [N, H, W, 3], as one request.

        `instances` [N, H, W] where the model reads instance edges. A `style` [N, 256] goes before a `seed` (one for all
        maps, or one for each map [N]). Raises ServerError, and ValueError for a request that no server could answer.
        """
        if labels.ndim != 3 or labels.size == 0:
            raise ValueError(f"[client] expected labels [N, H, W], N of 1 or more, but got shape {list(labels.shape)}")
        tensors: dict[str, npt.NDArray[Any] | None] = {"labels": labels, "instances": instances}
        answer = self._infer("spade", tensors | _style_tensors(len(labels), style, seed), {})
        return Result(answer.as_numpy("image"), read_timings(answer))

    def synthesize_image(
        self,
        label_maps: list[bytes],
        instance_maps: list[bytes] | None = None,
        style: Style | None = None,
        seed: int | npt.NDArray[np.int64] | None = None,
        format: str = "png",
        quality: int | None = None,
        colours: str | None = None,
    ) -> EncodedResult:
        """PNG files, of any size -> image files of the model's size; format png, jpeg or webp. Raises ServerError.

        `colours` is the text of a colour table, CSV or JSON, for label maps in RGB.
        """
        if not label_maps:
            raise ValueError("[client] expected one label map or more but got none")
        tensors: dict[str, npt.NDArray[Any] | None] = {
            "label_map": pad_files(label_maps)[0],
            "instance_map": pad_files(instance_maps)[0] if instance_maps else None,
        }
        parameters: dict[str, Any] = {"format": format, "quality": quality, "colours": colours}
        parameters = {name: value for name, value in parameters.items() if value is not None}
        answer = self._infer("spade_image", tensors | _style_tensors(len(label_maps), style, seed), parameters)
        rows, lengths = answer.as_numpy("image"), answer.as_numpy("image_bytes")[:, 0]
        return EncodedResult([row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)], read_timings(answer))

    def _infer(self, model: str, tensors: dict[str, npt.NDArray[Any] | None], parameters: dict[str, Any]) -> Any:
        inputs = [infer_input(self._api, name, tensor) for name, tensor in tensors.items() if tensor is not None]
        sent = parameters | {"sent_unix_us": time.time_ns() // 1000}
        try:
            return self._connection.infer(model, inputs, parameters=sent, **self._limit)
        except InferenceServerException as error:
            raise self._translated(error.message(), str(error.status())) from error
        except OSError as error:
            status = "deadline_exceeded" if isinstance(error, TimeoutError) else "unavailable"
            raise self._translated(str(error) or type(error).__name__, status) from error
        except HTTPException as error:
            raise self._other_protocol() from error

    def _other_protocol(self) -> ServerError:
        return ServerError(
            f"[client] expected {self._protocol} at {self.url} but the port speaks another protocol; "
            f"give the server's {self._protocol} port ({_PORTS[self._protocol]} unless `spade serve` got another)",
            "unimplemented",
        )

    def _translated(self, message: str, status: str) -> ServerError:
        if status == _NO_INFERENCE or re.search(_HUNG_UP, message):
            return self._other_protocol()
        if any(text in message.lower() for text in _NO_CONNECTION):
            return ServerError(
                f"[client] expected a server at {self.url} but got no connection ({message.splitlines()[0]}); "
                "start one with `spade serve`, or check host and port",
                "unavailable",
            )
        if _STOPPING in message:
            return ServerError(
                f"[client] expected models at {self.url} but got none: the server is stopping; try again later",
                "unavailable",
            )
        name = HTTP_STATUSES.get(status, status.removeprefix("StatusCode.").lower())
        if name == "deadline_exceeded":
            return ServerError(
                f"[client] expected an answer of {self.url} within {self.timeout_s:g} s but got none; "
                "send smaller requests, or give a longer timeout",
                name,
            )
        return ServerError(message.removeprefix(_NO_ID), name)


def infer_input(api: Any, name: str, tensor: npt.NDArray[Any]) -> Any:
    """A tensor as `tritonclient.grpc` or `tritonclient.http` (`api`) sends it."""
    prepared = api.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    prepared.set_data_from_numpy(tensor)
    return prepared


# HTTP status of Triton -> gRPC's name of the same error
HTTP_STATUSES = {
    "400": "invalid_argument",
    "404": "not_found",
    "408": "deadline_exceeded",
    "499": "cancelled",
    "500": "internal",
    "503": "unavailable",
}


def _split(url: str) -> tuple[str, str]:
    """`grpc://host:port` -> ("grpc", "host:port"). Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"[client] expected a server as grpc://HOST:PORT or http://HOST:PORT but got {url!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{parts.port or _PORTS[parts.scheme]}"


def _style_tensors(
    count: int, style: Style | None, seed: int | npt.NDArray[np.int64] | None
) -> dict[str, npt.NDArray[Any] | None]:
    seeds = None if seed is None else np.broadcast_to(np.asarray(seed, np.int64), (count,)).reshape(count, 1)
    return {"style": style, "seed": None if seeds is None else np.ascontiguousarray(seeds)}
