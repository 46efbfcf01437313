"""A client of a running server, over gRPC or HTTP. Needs NumPy and tritonclient only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from serving.client.connection import Connection, ServerError, Tensors
from serving.protocol import MODELS, ModelInfo, RequestTimings, joined_timings, pad_files, read_info, read_timings

if TYPE_CHECKING:
    from spade_core.types import Images, Instances, Labels, Style

__all__ = ["Client", "EncodedResult", "ModelInfo", "RequestTimings", "Result", "ServerError"]


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

    A call with more maps than the server's `max_batch` is sent in parts, one after another, in the order of the maps.
    Each map keeps its own row of the style and of the seeds. The timings of the parts are joined as
    `serving.protocol.joined_timings` says. Where a part fails, the call fails with that part's error.

    Args:
        url: address of the server, with `grpcs://` or `https://` for TLS. The default ports are 8001 for gRPC, 8000 for
            HTTP, and 443 with TLS.
        timeout_s: longest wait for the answer to one part.
        ca_file: certificates (PEM) of the authorities that may sign the server's certificate, for `grpcs://` and
            `https://`. None for the authorities that gRPC and Python's `certifi` bring along.
    """

    def __init__(self, url: str, timeout_s: float = 300.0, ca_file: str | Path | None = None) -> None:
        self.url = url
        self._connection = Connection(url, timeout_s, None if ca_file is None else Path(ca_file))
        self._max_batch: int | None = None  # unknown until a call has several maps

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def ready(self) -> bool:
        """True where the server answers and both models take requests."""
        return self._connection.ready(MODELS)

    def check_ready(self) -> None:
        """Raises ServerError where `ready` is False."""
        if not self.ready():
            raise ServerError(
                f"[client] expected a server with ready models at {self.url} but got none; start one with "
                "`spade serve`, or check host, port and protocol (gRPC and HTTP have a port each)",
                "unavailable",
            )

    def info(self) -> ModelInfo:
        """What the server serves: preset, classes, size, inputs and limits. Asks the server. Raises ServerError."""
        unread = {"label_map": np.zeros((1, 1), np.uint8)}  # Triton wants every input, also where no image is asked for
        return read_info(self._infer("spade_image", unread, {}, ["info"]))

    def synthesize(
        self,
        labels: Labels,
        instances: Instances | None = None,
        style: Style | None = None,
        seed: int | npt.NDArray[np.int64] | None = None,
    ) -> Result:
        """Label maps [N, H, W] -> images [N, H, W, 3].

        `instances` [N, H, W] where the model reads instance edges. A `style` [N, 256] goes before a `seed` (one for all
        maps, or one for each map [N]). Raises ServerError, and ValueError for a request that no server could answer.
        """
        if labels.ndim != 3 or labels.size == 0:
            raise ValueError(f"[client] expected labels [N, H, W], N of 1 or more, but got shape {list(labels.shape)}")
        whole: Tensors = {"labels": labels, "instances": instances, **_style_tensors(len(labels), style, seed)}

        answers = self._in_parts(len(labels), lambda part: self._infer("spade", _rows(whole, part), {}))
        images = [answer.as_numpy("image") for answer in answers]
        return Result(images[0] if len(images) == 1 else np.concatenate(images), _timings(answers))

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
        options: dict[str, Any] = {"format": format, "quality": quality, "colours": colours}
        parameters = {name: value for name, value in options.items() if value is not None}
        styles = _style_tensors(len(label_maps), style, seed)

        def send(part: slice) -> Any:
            files = {
                "label_map": pad_files(label_maps[part])[0],
                "instance_map": pad_files(instance_maps[part])[0] if instance_maps else None,
            }
            return self._infer("spade_image", {**files, **_rows(styles, part)}, parameters)

        answers = self._in_parts(len(label_maps), send)
        return EncodedResult([file for answer in answers for file in _files(answer)], _timings(answers))

    def _in_parts(self, count: int, send: Callable[[slice], Any]) -> list[Any]:
        """The answers to `count` maps. `send` sends one part of them, which is within the server's limit."""
        size = self._part_size(count)
        answers = []
        for first in range(0, count, size):
            # The last part takes all rows that are left, so that the server refuses an array with too many.
            last = first + size >= count
            try:
                answers.append(send(slice(first, None if last else first + size)))
            except ServerError as error:
                self._max_batch = None  # another server, with another limit, may have taken the address
                if first == 0:
                    raise
                raise ServerError(f"{error} (items count from map {first} of the call)", error.status) from error
        return answers

    def _part_size(self, count: int) -> int:
        if count == 1:
            return 1
        if self._max_batch is None:
            try:
                self._max_batch = self.info().max_batch
            except ServerError as error:
                if error.status != "invalid_argument":
                    raise
                return count  # a version that was published before there was `info` names no limit
        return self._max_batch

    def _infer(
        self, model: str, tensors: Tensors, parameters: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> Any:
        return self._connection.infer(model, tensors, parameters, outputs)


def _rows(tensors: Tensors, part: slice) -> Tensors:
    return {name: None if tensor is None else tensor[part] for name, tensor in tensors.items()}


def _files(answer: Any) -> list[bytes]:
    rows, lengths = answer.as_numpy("image"), answer.as_numpy("image_bytes")[:, 0]
    return [row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)]


def _timings(answers: Sequence[Any]) -> RequestTimings:
    return joined_timings([(len(answer.as_numpy("timings")), read_timings(answer)) for answer in answers])


def _style_tensors(count: int, style: Style | None, seed: int | npt.NDArray[np.int64] | None) -> Tensors:
    seeds = None if seed is None else np.broadcast_to(np.asarray(seed, np.int64), (count,)).reshape(count, 1)
    return {"style": style, "seed": None if seeds is None else np.ascontiguousarray(seeds)}
