"""PNG files as raw samples. Image libraries scale samples and apply palettes; a label map needs samples as stored."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import PngImagePlugin

from spade_core.config import MAX_PIXELS

Kind = Literal["grey", "palette", "rgb"]

MAX_SIDE = 1 << 15
"""Most pixels of a side: a row costs a decoder time of its own, however short it is."""

_MAX_CHUNKS = 1 << 14
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OTHERS = {
    b"\xff\xd8\xff": "a JPEG image: JPEG is lossy and changes ids at every edge",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image",
    b"BM": "a BMP image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"<": "text (HTML, XML or SVG)",
    b"version https://git-lfs": "a Git LFS pointer (run `git lfs pull`)",
}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Adam7: first column, first row, column step, row step of each pass (PNG specification, section 8).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class LabelMapError(ValueError):
    """A label or instance map cannot be used. The message says what was found and how to mend the map."""


@dataclass(frozen=True)
class Png:
    """The pixels of a PNG file as stored.

    Attributes:
        kind: grey, palette (pixels are indices) or rgb.
        pixels: uint8 or uint16 [H, W]; rgb: uint8 [H, W, 3]. Never scaled: a 2-bit sample is 0..3.
    """

    kind: Kind
    pixels: npt.NDArray[Any]


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    bits: int
    colour: int
    interlace: int


def read_png(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Png:
    """Read the raw samples of a still PNG: grey, palette, RGB or opaque RGBA.

    The size is checked before a pixel is decoded. Raises LabelMapError, and no other error, for every other input.
    """
    name, data = _load(source)
    header, packed = _chunks(name, data, max_pixels)
    _check_length(name, header, packed)
    samples = _decode(name, header, packed)
    if header.colour == 6:
        return Png("rgb", _opaque(name, samples))
    if header.colour == 2:
        return Png("rgb", samples)
    # Pillow stretches 2- and 4-bit grey to 0..255, and gives booleans for 1 bit.
    pixels = samples // (255 // (2**header.bits - 1)) if header.bits in (2, 4) else samples
    return Png("palette" if header.colour == 3 else "grey", pixels if header.bits == 16 else pixels.astype(np.uint8))


def _load(source: Path | bytes) -> tuple[str, bytes]:
    name = "the given bytes" if isinstance(source, bytes) else f"'{source}'"
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise LabelMapError(
            f"[png] expected a readable PNG file but got {name}: {error.strerror or error}; check the path"
        ) from None
    if not data:
        raise LabelMapError(f"[png] expected a PNG but got {name} with 0 bytes; write or send the file again")
    if not data.startswith(_SIGNATURE):
        found = next((text for magic, text in _OTHERS.items() if data.startswith(magic)), f"bytes {data[:8]!r}")
        raise LabelMapError(
            f"[png] expected a PNG but got {name}, {found}; save the map as PNG, from its lossless original"
        )
    return name, data


def _damaged(name: str, what: str) -> LabelMapError:
    return LabelMapError(f"[png] expected a whole PNG but got {name} with {what}; write or send the file again")


def _chunks(name: str, data: bytes, max_pixels: int) -> tuple[_Header, bytes]:
    """Split off the header and the compressed pixel data, the only parts of a file that reach a decoder."""
    header: _Header | None = None
    parts: list[bytes] = []
    at, chunks = len(_SIGNATURE), 0
    while at + 12 <= len(data):
        chunks += 1
        if chunks > _MAX_CHUNKS:
            raise LabelMapError(f"[png] expected at most {_MAX_CHUNKS} chunks but got more in {name}; save it again")
        length, kind = struct.unpack_from(">I4s", data, at)
        body, end = data[at + 8 : at + 8 + length], at + 12 + length
        if end > len(data):
            raise _damaged(name, f"chunk {kind!r} cut off at byte {len(data)} of {end}")
        if kind in (b"IHDR", b"IDAT") and zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], "big"
        ):
            raise _damaged(name, f"a wrong checksum in chunk {kind!r}")
        if (kind == b"IHDR") != (header is None):
            raise _damaged(name, f"chunk {kind!r} where {'IHDR' if header is None else 'pixel data'} belongs")
        if kind == b"IHDR":
            header = _parse_header(name, body, max_pixels)
        elif kind == b"acTL":
            raise LabelMapError(f"[png] expected a still PNG but got {name}, animated; save one frame")
        elif kind == b"IDAT":
            parts.append(body)
        elif kind == b"IEND" and header is not None:
            return header, b"".join(parts)
        at = end
    raise _damaged(name, f"no end: {len(data)} bytes and no IEND chunk")


def _parse_header(name: str, body: bytes, max_pixels: int) -> _Header:
    if len(body) != 13:
        raise _damaged(name, f"a header of {len(body)} bytes, not 13")
    width, height, bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if colour not in _DEPTHS or bits not in _DEPTHS[colour] or compression or filtering or interlace > 1:
        raise _damaged(name, f"an impossible header (colour type {colour}, {bits} bits)")
    if width < 1 or height < 1:
        raise _damaged(name, f"a size of {width}x{height} (width x height)")
    if width * height > max_pixels:
        raise LabelMapError(
            f"[png] expected at most {max_pixels} pixels but got {width}x{height} = {width * height} in {name}; "
            "make the map smaller (NEAREST)"
        )
    if max(width, height) > MAX_SIDE:
        raise LabelMapError(
            f"[png] expected sides of at most {MAX_SIDE} pixels but got {width}x{height} in {name}; "
            "make the map smaller (NEAREST)"
        )
    if colour == 4:
        raise LabelMapError(
            f"[png] expected grey, palette or RGB but got {name}, grey with alpha: "
            "which of the two channels holds the ids is a guess; save it without alpha"
        )
    if bits == 16 and colour != 0:
        raise LabelMapError(f"[png] expected 8 bits per channel but got {name}, 16-bit RGB; save it with 8 bits")
    return _Header(width, height, bits, colour, interlace)


def _check_length(name: str, header: _Header, packed: bytes) -> None:
    """Count the bytes of pixel data: Pillow fills missing rows with zeros, and zero is a label."""
    wanted, found = _raw_bytes(header), 0
    stream, rest = zlib.decompressobj(), packed
    try:
        while found < wanted and rest and not stream.eof:
            found += len(stream.decompress(rest, min(wanted - found, 1 << 20)))
            rest = stream.unconsumed_tail
    except zlib.error:
        raise _damaged(name, "pixel data that cannot be decompressed") from None
    if found < wanted:
        raise _damaged(name, f"{found} of {wanted} bytes of pixel data")


def _raw_bytes(header: _Header) -> int:
    """Count the bytes of all rows, each with its filter byte."""
    passes = _ADAM7 if header.interlace else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = -((x - header.width) // dx), -((y - header.height) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * header.bits * _CHANNELS[header.colour] + 7) // 8)
    return total


def _decode(name: str, header: _Header, packed: bytes) -> npt.NDArray[Any]:
    # Indices are stored as grey samples are. A header that says grey keeps Pillow from applying the palette.
    colour = 0 if header.colour == 3 else header.colour
    body = struct.pack(">IIBBBBB", header.width, header.height, header.bits, colour, 0, 0, header.interlace)
    file = _SIGNATURE + _chunk(b"IHDR", body) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    try:
        # Image.open would guess other formats, and warn about sizes that were allowed above.
        with PngImagePlugin.PngImageFile(io.BytesIO(file)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise _damaged(name, f"pixel data that cannot be decoded ({error})") from None


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _opaque(name: str, rgba: npt.NDArray[Any]) -> npt.NDArray[Any]:
    clear = int(np.count_nonzero(rgba[..., 3] != 255))
    if clear:
        raise LabelMapError(
            f"[png] expected an opaque RGBA image but got {clear} transparent pixels in {name}; "
            "paint every pixel, and save without alpha"
        )
    return rgba[..., :3]
