"""What the server and its clients agree on. Needs NumPy only, so that the client's package needs nothing more."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

MODELS = ("spade", "spade_image")
DEFAULT_STYLE = "noon"
"""The named style of a picture whose style nobody chose, where the weights have it."""

STOPPING = ("Server not ready", "has no available versions")
"""Triton's texts for a request that comes while the server stops. Their code may be lost: match the texts."""

UNKNOWN = -1.0
"""A timing that was not measured. HTTP answers are written in JSON, which has no NaN."""


@dataclass(frozen=True)
class RequestTimings:
    """Output `timings` FP32 [N, 7]: these fields in this order, the same row for every map of a request.

    A field that was not measured is `UNKNOWN`; all other values are 0 or more.

    Attributes:
        queue_s: from sending the request to the start of its batch, network and queue included; unknown where the
            request has no parameter `sent_unix_us`. Across machines the value includes the difference of their clocks,
            and is 0 where that difference would make the value negative.
        plan_s, codebook_s, convs_s: `serving.engines.timings.Timings` of the batch that the request was part of.
        total_s: from the start of the batch to this answer.
        batch_size: label maps in the engine batch.
        distinct_share: distinct 5x5 patches per pixel over all levels of the batch, 0..1.
    """

    queue_s: float
    plan_s: float
    codebook_s: float
    convs_s: float
    total_s: float
    batch_size: float
    distinct_share: float

    @classmethod
    def unknown(cls) -> RequestTimings:
        """The record of a model that measures nothing."""
        return cls(*[UNKNOWN] * len(fields(cls)))

    @property
    def engine_s(self) -> float:
        """Seconds of the batch inside the engine."""
        return self.plan_s + self.codebook_s + self.convs_s

    def rows(self, count: int) -> npt.NDArray[np.float32]:
        """The output tensor of a request of `count` maps, float32 [N, 7]."""
        return np.tile(np.array(astuple(self), np.float32), (count, 1))


def read_timings(answer: Any) -> RequestTimings:
    """The timings of an answer as tritonclient reads it, over either protocol."""
    return RequestTimings(*(float(value) for value in answer.as_numpy("timings")[0]))


def joined_timings(parts: Sequence[tuple[int, RequestTimings]]) -> RequestTimings:
    """The timings of a call that was sent in parts, one after another. Each part is (maps, timings).

    Seconds are the sums of the parts, `batch_size` is the largest, and `distinct_share` is the mean over the maps. A
    field that is unknown for one part is unknown for the call.
    """
    if len(parts) == 1:
        return parts[0][1]
    maps = [count for count, _ in parts]
    rows = np.array([astuple(timings) for _, timings in parts])  # [parts, fields]
    joined = {field.name: float(rows[:, i].sum()) for i, field in enumerate(fields(RequestTimings))}
    joined["batch_size"] = max(timings.batch_size for _, timings in parts)
    joined["distinct_share"] = float(np.average([timings.distinct_share for _, timings in parts], weights=maps))
    for i, name in enumerate(joined):
        if (rows[:, i] < 0).any():
            joined[name] = UNKNOWN
    return RequestTimings(**joined)


@dataclass(frozen=True)
class ModelInfo:
    """What a server serves, and its limits: output `info` of `spade_image`, as JSON.

    Attributes:
        preset: name of the preset that the model's configuration started from.
        classes: number of classes; ids are 0 .. classes - 1.
        dont_care: pixel value 255 is allowed too, and means "no class".
        height, width: the model's size in pixels; `spade_image` answers images of this size.
        instances: requests need an instance map.
        style: requests may have a style or a seed.
        max_batch: most label maps of one request; `Client` splits larger ones.
        max_pixels: most pixels (height times width) of one label map for `spade`.
        class_names: the name of each class, then "don't care" where there is one; empty from an older server.
        class_colours: the colour that draws each of them, (red, green, blue); label maps in RGB may use these colours.
        styles: named styles as `spade_core.models.style.styles_text` writes them; empty where there are none.
    """

    preset: str
    classes: int
    dont_care: bool
    height: int
    width: int
    instances: bool
    style: bool
    max_batch: int
    max_pixels: int
    class_names: tuple[str, ...] = ()
    class_colours: tuple[tuple[int, int, int], ...] = ()
    styles: str = ""

    def rows(self, count: int) -> npt.NDArray[np.uint8]:
        """The output tensor of a request of `count` maps, uint8 [N, bytes]."""
        return np.tile(np.frombuffer(json.dumps(asdict(self)).encode(), np.uint8), (count, 1))

    @classmethod
    def from_json(cls, text: bytes) -> ModelInfo:
        """The inverse of a row. Fields that a newer server adds are left out."""
        values = json.loads(text)
        values["class_names"] = tuple(values.get("class_names", ()))
        values["class_colours"] = tuple((r, g, b) for r, g, b in values.get("class_colours", ()))
        values.setdefault("styles", "")
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def named_styles(self) -> dict[str, npt.NDArray[np.float32]]:
        """The named styles of the served weights, float32 [256] each, for `style` of a request."""
        found = json.loads(self.styles or "{}")
        return {name: np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32) for name, text in found.items()}


def read_info(answer: Any) -> ModelInfo:
    """The info of an answer as tritonclient reads it."""
    return ModelInfo.from_json(answer.as_numpy("info")[0].tobytes())


def pad_files(files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Stack N files as uint8 [N, L], padded with zeros to the longest, and give their lengths int32 [N, 1]."""
    lengths = np.array([[len(file)] for file in files], np.int32)
    padded = np.zeros((len(files), int(lengths.max())), np.uint8)
    for row, file in zip(padded, files, strict=True):
        row[: len(file)] = np.frombuffer(file, np.uint8)
    return padded, lengths
