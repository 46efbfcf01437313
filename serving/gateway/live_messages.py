"""The messages of `WS /v1/live`, as docs/live.md lists them.

A message is JSON as text or, with bytes, the length of the JSON (4 bytes, little-endian), the JSON and the bytes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.gateway.rle import decode_runs
from serving.requests.images import MAX_FILE_PIXELS
from spade_core.maps.label_maps import read_label_map, resize_nearest_centred

MOST_BYTES = 16 << 20  # of one message
_MOST_HEADER = 64 << 10  # of its JSON
_LENGTH = struct.Struct("<I")

Json = dict[str, Any]
Map = npt.NDArray[np.uint8]


def write_message(header: Json, body: bytes) -> bytes:
    """A message with bytes."""
    text = json.dumps(header).encode()
    return b"".join((_LENGTH.pack(len(text)), text, body))


def read_message(message: str | bytes) -> tuple[Json, bytes]:
    """Split a message into header and bytes. Raises ValueError for anything else."""
    body = b""
    if isinstance(message, bytes):
        if len(message) < _LENGTH.size or (end := _LENGTH.unpack_from(message)[0] + _LENGTH.size) > len(message):
            raise ValueError("[live] expected the length of the JSON, the JSON and the bytes but got too few bytes")
        message, body = message[_LENGTH.size : end], message[end:]
    if len(message) > _MOST_HEADER:
        raise ValueError(f"[live] expected a header of at most {_MOST_HEADER} bytes but got {len(message)}")
    try:
        header = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"[live] expected a header in JSON but got {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ValueError(f'[live] expected an object with a "type" but got {header!r:.100}')
    return header, body


def read_number(header: Json, name: str, low: int, high: int) -> int:
    """A whole number of a header. Raises ValueError."""
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"[live] expected {name} as a whole number {low}..{high} but got {value!r:.50}")
    return value


@dataclass(frozen=True)
class Edit:
    """New labels for a rectangle of the map, still encoded: an edit that a later one covers is never decoded.

    Attributes:
        rows, columns: (first, end) of the rectangle.
        encoding: rle or png.
        code: the labels.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    encoding: str
    code: bytes

    @classmethod
    def read(cls, header: Json, code: bytes, size: tuple[int, int]) -> Edit:
        """An edit of a map of `size` (height, width): type `map` is all of it. Raises ValueError."""
        height, width = size
        if header["type"] == "map":
            rows, columns = (0, height), (0, width)
        else:
            x, y = read_number(header, "x", 0, width - 1), read_number(header, "y", 0, height - 1)
            rows = (y, y + read_number(header, "height", 1, height - y))
            columns = (x, x + read_number(header, "width", 1, width - x))
        encoding = header.get("encoding")
        if encoding not in ("rle", "png"):
            raise ValueError(f"[live] expected encoding rle or png but got {encoding!r:.50}")
        return cls(rows, columns, encoding, code)

    def covers(self, other: Edit) -> bool:
        """Whether nothing of `other` is left after this edit."""
        outside = (
            other.rows[0] < self.rows[0],
            other.rows[1] > self.rows[1],
            other.columns[0] < self.columns[0],
            other.columns[1] > self.columns[1],
        )
        return not any(outside)

    def apply(self, labels: Map) -> None:
        """Write the new labels into a map [H, W]. A PNG is brought to the rectangle's size. Raises ValueError."""
        height, width = self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]
        if self.encoding == "rle":
            part = decode_runs(self.code, height, width)
        else:
            part = resize_nearest_centred(read_label_map(self.code, max_pixels=MAX_FILE_PIXELS), height, width)
        labels[slice(*self.rows), slice(*self.columns)] = part
