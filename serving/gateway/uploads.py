"""Bodies of requests: bounded before they are read, parsed in memory without a thread or a temporary file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.gateway.problems import Problem

_MAX_PARTS = 64
_MAX_HEADER_BYTES = 8 << 10  # of one part


@dataclass
class Part:
    """One field of a form."""

    name: str = ""
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)


class Form:
    """The fields of a multipart form.

    Args:
        parts: in the order of the body.
    """

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    def names(self) -> list[str]:
        """Every name once."""
        return list(dict.fromkeys(part.name for part in self._parts))

    def files(self, name: str) -> list[bytes]:
        """The contents of every field of a name."""
        return [bytes(part.data) for part in self._parts if part.name == name]

    def text(self, name: str) -> str | None:
        """The text of a field; None where there is no such field. Raises Problem for two fields or no UTF-8."""
        found = self.files(name)
        if not found:
            return None
        if len(found) > 1:
            raise Problem("invalid-request", f"[form] expected one field {name!r} but got {len(found)}; send one")
        try:
            return found[0].decode()
        except UnicodeDecodeError:
            raise Problem("invalid-request", f"[form] expected field {name!r} as UTF-8 text but got bytes") from None


async def read_body(request: Request, most: int, timeout_s: float) -> bytes:
    """The body. Raises Problem 413 for more than `most` bytes, before it is read where the header tells its length."""
    chunks = [chunk async for chunk in _chunks(request, most, timeout_s)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_form(request: Request, most: int, timeout_s: float) -> Form:
    """The body as a multipart form of at most `most` bytes. Raises Problem."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Problem("invalid-request", "[form] expected multipart/form-data with a boundary but got none")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]
        async for chunk in _chunks(request, most, timeout_s):
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise Problem("invalid-request", f"[form] expected a multipart form but got {error}") from None
    if not collector.ended:
        raise Problem("invalid-request", "[form] expected a whole multipart form but its last boundary is missing")
    return Form(collector.parts)


async def _chunks(request: Request, most: int, timeout_s: float) -> AsyncIterator[bytes]:
    length = request.headers.get("content-length")
    if length is not None and int(length) > most:  # the server has checked that it is a number
        raise _too_large(most, f"{length} bytes")
    read = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                read += len(chunk)
                if read > most:
                    raise _too_large(most, "more")
                if chunk:
                    yield chunk
    except TimeoutError:
        raise Problem(
            "request-timeout", f"[body] expected the whole body within {timeout_s:g} s but got {read} bytes"
        ) from None


def _too_large(most: int, got: str) -> Problem:
    # The rest of the body is not read, so the connection cannot be used again.
    return Problem(
        "too-large", f"[body] expected a body of at most {most} bytes but got {got}; send smaller files", CLOSE
    )


CLOSE = {"Connection": "close"}


class _Collector:
    """Builds parts from the parser's calls."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._header_name, self._header_value = bytearray(), bytearray()
        self._header_bytes = 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._header,
            "on_headers_finished": self._headers,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == _MAX_PARTS:
            raise Problem("invalid-request", f"[form] expected at most {_MAX_PARTS} fields but got more")
        self.parts.append(Part())
        self._header_bytes = 0

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += memoryview(data)[start:end]

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header_value += data[start:end]

    def _count(self, read: int) -> None:
        self._header_bytes += read
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise Problem(
                "invalid-request", f"[form] expected headers of at most {_MAX_HEADER_BYTES} bytes a field but got more"
            )

    def _header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._header_value))
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
            self.parts[-1].is_file = b"filename" in options
        self._header_name.clear()
        self._header_value.clear()

    def _headers(self) -> None:
        if not self.parts[-1].name:
            raise Problem("invalid-request", "[form] expected a name for each field but one has none")

    def _end(self) -> None:
        self.ended = True
