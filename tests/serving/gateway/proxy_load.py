"""Clients of a proxy, each with one request after another: `python proxy_load.py ADDRESS`, until standard input ends.

Prints a line of JSON for each answer: the door, the hash of the image or the error, and the seconds it took.
No client tries again: what is lost shows.
"""

from __future__ import annotations

import hashlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable

import httpx
import numpy as np
import tritonclient.grpc as triton_grpc
from served import blocks, png

from serving.client.client import Client

LABELS = blocks(1, size=64, classes=8)
CLIENTS = 2  # of each door


def draw_by_http(address: str) -> Callable[[], bytes]:
    client = httpx.Client(base_url=f"http://{address}:8000", timeout=120)
    files = {"label_map": png(LABELS[0]), "instance_map": png(LABELS[0])}
    return lambda: client.post("/v1/synthesize", files=files).raise_for_status().content


def draw_by_grpc(address: str) -> Callable[[], bytes]:
    client = Client(f"grpc://{address}:8001", timeout_s=120)
    return lambda: client.synthesize(LABELS, LABELS.astype(np.int32)).images.tobytes()


def draw_by_stream(address: str) -> Callable[[], bytes]:
    """A stream of one request each, since a stream is bound to its server."""
    inputs = []
    for name, values in (("labels", LABELS), ("instances", LABELS.astype(np.int32))):
        kind = "UINT8" if values.dtype == np.uint8 else "INT32"
        inputs.append(triton_grpc.InferInput(name, values.shape, kind).set_data_from_numpy(values))

    def draw() -> bytes:
        answers: queue.Queue[tuple[triton_grpc.InferResult, Exception | None]] = queue.Queue()
        with triton_grpc.InferenceServerClient(f"{address}:8001") as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("spade", inputs)
            result, error = answers.get(timeout=120)
        if error is not None:
            raise error
        return bytes(result.as_numpy("image").tobytes())

    return draw


def show(line: dict[str, object]) -> None:
    print(json.dumps(line) + "\n", end="", flush=True)  # one piece, since threads share the stream


def ask(door: str, draw: Callable[[], bytes], stop: threading.Event) -> None:
    while not stop.is_set():
        began = time.monotonic()
        try:
            line: dict[str, object] = {"door": door, "image": hashlib.sha256(draw()).hexdigest()}
        except Exception as error:  # noqa: BLE001 - whatever it is, the request is lost
            line = {"door": door, "error": f"{type(error).__name__}: {error}"}
        show(line | {"seconds": round(time.monotonic() - began, 3)})


def main() -> None:
    address, stop = sys.argv[1], threading.Event()
    doors = {"http": draw_by_http, "grpc": draw_by_grpc}
    show({"door": "stream", "image": hashlib.sha256(draw_by_stream(address)()).hexdigest(), "seconds": 0})
    threads = [
        threading.Thread(target=ask, args=(door, make(address), stop))
        for door, make in doors.items()
        for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
