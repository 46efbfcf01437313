"""Requests of a live connection that are answered once: pictures in several styles, and label map files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.gateway.callers import Caller
from serving.gateway.live_messages import Json
from serving.gateway.model_classes import colour_table, config_of
from serving.gateway.rle import decode_runs, encode_runs
from serving.gateway.sessions import LiveSession
from serving.gateway.styles import Style, read_style, style_tensors
from serving.gateway.upstream import Upstream
from serving.protocol import ModelInfo, RequestTimings, read_timings
from serving.requests.images import MAX_FILE_PIXELS, Encoding, encode_images, read_encoding
from serving.traces import TRACEPARENT
from spade_core.maps.label_maps import check_labels, read_label_map, resize_nearest_centred

DEADLINE_S = 20.0  # of one request to the model


@dataclass(eq=False)
class Painter:
    """Who paints, and how the pictures go out.

    Attributes:
        upstream: the way to the model.
        info: the model.
        caller: for the fairness of the queue, and its limit.
        session: what is painted.
        encoding: of the pictures.
        traceparent: of the connection.
    """

    upstream: Upstream
    info: ModelInfo
    caller: Caller
    session: LiveSession
    encoding: Encoding
    traceparent: str


Work = Callable[[Painter, Json, bytes], Coroutine[Any, Any, tuple[Json, bytes]]]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Images uint8 [N, H, W, 3] and the timings of their request."""

    images: npt.NDArray[np.uint8]
    timings: RequestTimings


async def ask(
    painter: Painter, labels: npt.NDArray[np.uint8], styles: list[Style] | None, session: str | None = None
) -> Drawn:
    """Have model `spade` draw label maps [N, H, W]. Raises Problem for a caller that has used up its limit, and what
    `Upstream.forward` raises.
    """
    painter.caller.take(len(labels))
    tensors: dict[str, npt.NDArray[Any]] = {"labels": labels}
    if styles is not None:
        tensors |= style_tensors(styles)
    if painter.info.instances:
        tensors["instances"] = labels.astype(np.int32)  # a painting has no instances: every region is one
    parameters: dict[str, int | str] = {"sent_unix_us": time.time_ns() // 1000}
    if session is not None:
        parameters["session"] = session
    upstream = painter.upstream
    span = upstream.tracer.begin("live draw", painter.traceparent)
    try:
        answer = await upstream.infer(
            "spade", tensors, parameters, DEADLINE_S, client=painter.caller.queue,
            metadata=((TRACEPARENT, span.traceparent),),
        )  # fmt: skip
    finally:
        span.end({"spade.maps": len(labels)})
    return Drawn(answer.as_numpy("image"), read_timings(answer))


async def encode(images: npt.NDArray[np.uint8], encoding: Encoding) -> tuple[list[bytes], float]:
    """Image files, and the seconds that they took."""
    began = time.perf_counter()
    files = list(await asyncio.to_thread(encode_images, images, encoding))
    return files, time.perf_counter() - began


async def variants(painter: Painter, header: Json, body: bytes) -> tuple[Json, bytes]:
    """One map in several styles, in one request: one plan and one codebook. With bytes, the map is theirs (RLE)."""
    info, session = painter.info, painter.session
    wanted = header.get("styles")
    if not isinstance(wanted, list) or not 1 <= len(wanted) <= info.max_batch:
        raise ValueError(f"[live] expected 1..{info.max_batch} styles in a list but got {wanted!r:.100}")
    named = info.named_styles()
    styles = [read_style(one, named) for one in wanted] if info.style else None
    # The edits that came before this request may not be in the map yet.
    labels = decode_runs(body, info.height, info.width) if body else await asyncio.to_thread(session.current)
    drawn = await ask(painter, np.repeat(labels[None], len(wanted), 0), styles)
    encoding = painter.encoding
    if header.get("format") is not None:
        encoding = read_encoding({name: header[name] for name in ("format", "quality") if header.get(name) is not None})
    files, file_s = await encode(drawn.images, encoding)
    answer = {
        "type": "variants",
        "format": encoding.format,
        "lengths": [len(file) for file in files],
        "timings": asdict(drawn.timings) | {"file_s": file_s},
    }
    return answer, b"".join(files)


async def read_map(painter: Painter, _header: Json, body: bytes) -> tuple[Json, bytes]:
    """A label map file as this library reads it, at the model's size, as runs. The session's map stays as it is."""
    info = painter.info

    def read() -> bytes:
        labels = read_label_map(body, colours=colour_table(info), max_pixels=MAX_FILE_PIXELS)
        check_labels(labels[None], config_of(info))
        return encode_runs(resize_nearest_centred(labels, info.height, info.width))

    return {"type": "map", "encoding": "rle"}, await asyncio.to_thread(read)


async def vector(painter: Painter, header: Json, _body: bytes) -> tuple[Json, bytes]:
    """The numbers of a style, as the field `style` of `POST /v1/synthesize` takes them."""
    style = read_style(header.get("style"), painter.info.named_styles())
    return {"type": "vector", "vector": style.vector.tolist()}, b""


KINDS: dict[str, Work] = {"variants": variants, "read_map": read_map, "vector": vector}
