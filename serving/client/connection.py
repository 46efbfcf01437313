"""One connection to a server over gRPC or HTTP, with or without TLS, and its errors in plain words."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy.typing as npt
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.protocol import STOPPING

Tensors = Mapping[str, npt.NDArray[Any] | None]

_NO_ID = "[request id: <id_unknown>] "  # Triton's prefix for requests without an id; we send no ids
_PORTS = {"grpc": 8001, "http": 8000, "grpcs": 443, "https": 443}
_NO_INFERENCE = "405"  # status of Triton's metrics port for a request to infer
_HUNG_UP = r"failed to connect .*Socket closed"  # gRPC's message where the other side speaks no gRPC
_NO_TLS = ("wrong_version_number", "wrong version number", "record layer failure", "record_layer_failure")
_BAD_CERTIFICATE = ("certificate_verify_failed", "certificate verify failed", "hostname verification")
_NO_CONNECTION = ("failed to connect", "connection refused", "name or service not known", "dns resolution failed")

# A server that ended in the middle of an answer: gRPC through a proxy, where no client of ours cancels a call, and the
# parser of HTTP.
_CUT = ("StatusCode.CANCELLED", "Stream removed")
_LATE = "Stream removed (Deadline Exceeded)"  # gRPC's other words for its own time limit
_CUT_HTTP = ("Incomplete response", "Invalid EOF state")

# HTTP status of Triton -> gRPC's name of the same error
HTTP_STATUSES = {
    "400": "invalid_argument",
    "404": "not_found",
    "408": "deadline_exceeded",
    "499": "cancelled",
    "500": "internal",
    "503": "unavailable",
}


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
class Address:
    """Where a server is: `protocol` grpc or http, `host` as HOST:PORT, and whether TLS protects the connection."""

    scheme: str
    host: str

    @property
    def protocol(self) -> str:
        return self.scheme.removesuffix("s")

    @property
    def tls(self) -> bool:
        return self.scheme.endswith("s")

    @classmethod
    def parse(cls, url: str) -> Address:
        """`grpc://host:port` -> Address("grpc", "host:port"). Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError(
                "[client] expected a server as grpc://HOST:PORT or http://HOST:PORT, grpcs:// or https:// for TLS, "
                f"but got {url!r}"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(parts.scheme, f"{host}:{parts.port or _PORTS[parts.scheme]}")


class Connection:
    """A connection to the models of one server.

    Args:
        url, timeout_s, ca_file: see `serving.client.client.Client`.
    """

    def __init__(self, url: str, timeout_s: float, ca_file: Path | None) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._address = Address.parse(url)
        if ca_file is not None:
            _check_ca_file(self._address, ca_file)
        is_grpc = self._address.protocol == "grpc"
        self._api: Any = triton_grpc if is_grpc else triton_http
        # Over HTTP, the connection itself has the limit.
        self._limit: dict[str, Any] = {"client_timeout": timeout_s} if is_grpc else {}
        make = _grpc_client if is_grpc else _http_client
        self.triton: Any = make(self._address, timeout_s, ca_file)

    def close(self) -> None:
        self.triton.close()

    def ready(self, models: Sequence[str]) -> bool:
        """True where the server answers and all models take requests."""
        try:
            return all(self.triton.is_model_ready(model, **self._limit) for model in models)
        except (InferenceServerException, OSError, HTTPException):
            return False

    def infer(
        self, model: str, tensors: Tensors, parameters: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> Any:
        """Send a request and wait for the answer. Tensors that are None are left out. Raises ServerError.

        `outputs` are the tensors to answer; None for all of an image.
        """
        inputs = [infer_input(self._api, name, tensor) for name, tensor in tensors.items() if tensor is not None]
        wanted = None if outputs is None else [self._api.InferRequestedOutput(name) for name in outputs]
        sent = {**parameters, "sent_unix_us": time.time_ns() // 1000}
        try:
            return self.triton.infer(model, inputs, outputs=wanted, parameters=sent, **self._limit)
        except InferenceServerException as error:
            raise self._translated(error.message(), str(error.status())) from error
        except OSError as error:
            status = "deadline_exceeded" if isinstance(error, TimeoutError) else "unavailable"
            raise self._translated(str(error) or type(error).__name__, status) from error
        except HTTPException as error:
            cut = any(text in str(error) for text in _CUT_HTTP)
            raise (self._cut(str(error)) if cut else self._other_protocol()) from error

    def _cut(self, message: str) -> ServerError:
        return ServerError(
            f"[client] expected an answer of {self.url} but the connection was cut ({message}); try again",
            "unavailable",
        )

    def _other_protocol(self) -> ServerError:
        scheme = self._address.scheme
        return ServerError(
            f"[client] expected {scheme} at {self.url} but the port speaks another protocol; "
            f"give the server's {scheme} port ({_PORTS[scheme]} unless `spade serve` got another)"
            if not self._address.tls
            else f"[client] expected {scheme} at {self.url} but the port speaks no TLS; "
            f"give the port of the TLS proxy, or {self._address.protocol}:// for a server without TLS",
            "unimplemented",
        )

    def _translated(self, message: str, status: str) -> ServerError:
        lower = message.lower()
        if any(text in lower for text in _BAD_CERTIFICATE):
            return ServerError(
                f"[client] expected a certificate for {self.url} from a known authority but got another "
                f"({message.splitlines()[0]}); give the authority's certificate as ca_file, and the host name that "
                "the server's certificate holds",
                "unauthenticated",
            )
        if status == _NO_INFERENCE or re.search(_HUNG_UP, message) or any(text in lower for text in _NO_TLS):
            return self._other_protocol()
        if "[ssl: " in lower:  # Python's prefix; the other side may speak no TLS, or may have ended
            return ServerError(
                f"[client] expected TLS at {self.url} but it failed ({message.splitlines()[0]}); "
                "check that the port speaks TLS, or try again later",
                "unavailable",
            )
        if any(text in lower for text in _NO_CONNECTION):
            return ServerError(
                f"[client] expected a server at {self.url} but got no connection ({message.splitlines()[0]}); "
                "start one with `spade serve`, or check host and port",
                "unavailable",
            )
        if any(text in message for text in STOPPING):
            return ServerError(
                f"[client] expected models at {self.url} but got none: the server is stopping; try again later",
                "unavailable",
            )
        late = message.startswith(_LATE)
        if not late and (status == _CUT[0] or message.startswith(_CUT[1])):
            return self._cut(message)
        name = "deadline_exceeded" if late else HTTP_STATUSES.get(status, status.removeprefix("StatusCode.").lower())
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


def _check_ca_file(address: Address, ca_file: Path) -> None:
    """Raises ValueError for a file without certificates, or an address without TLS, which would ignore the file."""
    if not address.tls:
        raise ValueError(
            f"[client] expected ca_file with grpcs:// or https:// only but got it with {address.scheme}://; "
            f"give {address.protocol}s://, or leave ca_file out"
        )
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # among them ssl.SSLError
        raise ValueError(f"[client] expected ca_file as certificates in PEM but got '{ca_file}': {error}") from None


def _grpc_client(address: Address, _timeout_s: float, ca_file: Path | None) -> Any:
    roots = None if ca_file is None else str(ca_file)
    return triton_grpc.InferenceServerClient(address.host, ssl=address.tls, root_certificates=roots)


def _http_client(address: Address, timeout_s: float, ca_file: Path | None) -> Any:
    options = {} if ca_file is None else {"ca_certs": str(ca_file)}
    return triton_http.InferenceServerClient(
        address.host, connection_timeout=timeout_s, network_timeout=timeout_s,
        ssl=address.tls, ssl_options=options if address.tls else None,
    )  # fmt: skip
