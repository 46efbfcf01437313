"""A client of live painting, as a program would write one."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from serving.gateway.pair import Pair
from serving.gateway.rle import encode_runs

WAIT_S = 60.0


class LiveClient:
    """One connection. Use as a context manager."""

    def __init__(
        self, pair: Pair, origin: str | None = None, headers: dict[str, str] | None = None, **hello: Any
    ) -> None:
        url = pair.http_url.replace("http", "ws") + "/v1/live"
        options: dict[str, Any] = {"origin": origin, "additional_headers": headers, "max_size": None, "proxy": None}
        self.socket: ClientConnection = connect(url, **options)
        self.revision = 0
        self.send({"type": "hello", "format": "png", **hello})

    def __enter__(self) -> LiveClient:
        self.welcome, _ = self.receive()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        text = json.dumps(header)
        self.socket.send(struct.pack("<I", len(text)) + text.encode() + body if body else text)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        message = self.socket.recv(WAIT_S)
        if isinstance(message, str):
            return json.loads(message), b""
        (length,) = struct.unpack_from("<I", message)
        return json.loads(message[4 : 4 + length]), message[4 + length :]

    def change(self, header: dict[str, Any], body: bytes = b"") -> None:
        self.revision += 1
        self.send(header | {"revision": self.revision}, body)

    def map(self, labels: npt.NDArray[np.uint8]) -> None:
        self.change({"type": "map", "encoding": "rle"}, encode_runs(labels))

    def rect(self, x: int, y: int, labels: npt.NDArray[np.uint8]) -> None:
        height, width = labels.shape
        header = {"type": "rect", "x": x, "y": y, "width": width, "height": height, "encoding": "rle"}
        self.change(header, encode_runs(labels))

    def frame(self) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        """The frame of the newest revision, and its pixels [H, W, 3]. Older frames are passed over."""
        while True:
            header, body = self.receive()
            assert header["type"] == "frame", header
            assert header["revision"] <= self.revision
            if header["revision"] == self.revision:
                return header, pixels(body)

    def problem(self) -> dict[str, Any]:
        """The next problem; frames before it are passed over."""
        while (received := self.receive()[0])["type"] != "problem":
            pass
        return received

    def ask(self, header: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """A request and its answer."""
        self.send(header | {"request": 1}, body)
        while True:
            answer, content = self.receive()
            if answer.get("request") == 1:
                return answer, content


def pixels(file: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
