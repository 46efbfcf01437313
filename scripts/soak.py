"""Ask a real `spade serve` for images over and over, and say whether memory, descriptors and shared memory stay flat.

    python scripts/soak.py --requests 20000

Batches of every size go first: each size of batch has buffers of its own, and the supervisor's canary meets a request
sooner or later. Then requests go in turn to tensors over gRPC, tensors over HTTP, and POST /v1/synthesize. The slope is
that of a straight line through the samples after the first quarter, with its 95 % interval. Exit status 1 where an
image differed, a request failed, a process was replaced, or memory grows: the whole interval is above a kilobyte a
request.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from serving.client.client import Client
from serving.gateway.pair import Pair, serve_pair
from serving.supervisor.processes import arguments_of, descriptors_of, processes_of_group
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions
from spade_core.config import DEMO_WEIGHTS

SAMPLES = 200
WARM_UP = 0.25  # of the samples are left out
GROWTH = 1024.0  # bytes a request that count as growing


@dataclass(frozen=True)
class Sample:
    """What the processes hold after `requests`: the gateway, Triton, the engine's process and the decoders'."""

    requests: int
    gateway_bytes: int
    triton_bytes: int
    spade_bytes: int
    spade_image_bytes: int
    descriptors: int
    shared_files: int


def sample(pair: Pair, requests: int) -> Sample:
    triton = processes_of_group(pair.triton.process.pid)
    gateway = processes_of_group(pair.gateway.pid)
    name = pair.log.parent.name
    memory = Counter({"gateway": sum(process.rss_bytes for process in gateway)})
    for process in triton:
        memory[_part(process.pid)] += process.rss_bytes
    return Sample(
        requests,
        *(memory[part] for part in ("gateway", "triton", "spade", "spade_image")),
        sum(descriptors_of(process.pid) for process in triton + gateway),
        len([path for path in Path("/dev/shm").iterdir() if path.name.startswith(name)]),
    )


def _part(pid: int) -> str:
    """Whose process of Triton's group this is."""
    script = " ".join(arguments_of(pid)[1:2])
    return next((model for model in ("spade_image", "spade") if f"/{model}/" in script), "triton")


def slope(requests: Sequence[int], values: Sequence[int]) -> tuple[float, float]:
    """Least squares: how much a value grows a request, and half its 95 % interval."""
    x, y = np.asarray(requests, float), np.asarray(values, float)
    x -= x.mean()
    per_request = float(x @ y / (x @ x))
    rest = y - y.mean() - per_request * x
    return per_request, 1.96 * float(np.sqrt(rest @ rest / max(1, len(x) - 2) / (x @ x)))


class Asker:
    """Three ways to the same image."""

    def __init__(self, pair: Pair) -> None:
        self.grpc, self.http = Client(pair.grpc_url), Client(pair.http_url)
        info = self.grpc.info()
        shape = (info.height // 16, info.width // 16)
        coarse = np.random.default_rng(0).integers(0, info.classes, shape, dtype=np.uint8)
        self.labels = coarse.repeat(16, axis=0).repeat(16, axis=1)[None]
        file = io.BytesIO()
        Image.fromarray(self.labels[0]).save(file, "PNG")
        self.file, self.port = file.getvalue(), pair.options.http_port
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.expected = self.grpc.synthesize(self.labels, seed=0).images[0]

    def close(self) -> None:
        for one in (self.grpc, self.http, self.connection):
            one.close()

    def warm_up(self, max_batch: int) -> None:
        """Have every size of batch made once."""
        for size in range(1, max_batch + 1):
            self.grpc.synthesize(np.repeat(self.labels, size, axis=0))

    def ask(self, number: int) -> bool:
        """Whether request `number` was answered with the right image."""
        match number % 3:
            case 0:
                image = self.grpc.synthesize(self.labels, seed=0).images[0]
            case 1:
                image = self.http.synthesize(self.labels, seed=0).images[0]
            case _:
                self.connection.request("POST", "/v1/synthesize?seed=0", self.file, {"Content-Type": "image/png"})
                image = np.asarray(Image.open(io.BytesIO(self.connection.getresponse().read())))
        return bool((image == self.expected).all())


def run(pair: Pair, requests: int) -> dict[str, Any]:
    """Send the requests. Returns the report."""
    every, wrong = max(1, requests // SAMPLES), 0
    with contextlib.closing(Asker(pair)) as asker:
        asker.warm_up(pair.options.model.max_batch)
        samples, began = [sample(pair, 0)], time.monotonic()
        for number in range(1, requests + 1):
            wrong += not asker.ask(number)
            if number % every == 0:
                samples.append(sample(pair, number))
    kept = samples[int(len(samples) * WARM_UP) :]
    counts = [one.requests for one in kept]
    growth = {
        name: slope(counts, [getattr(one, name) for one in kept])
        for name in (field.name for field in fields(Sample) if field.name != "requests")
    }
    return {
        "requests": requests,
        "seconds": round(time.monotonic() - began, 1),
        "wrong": wrong,
        "restarts": sum(pair.status.status.restarts.values()),
        "first": asdict(kept[0]),
        "last": asdict(kept[-1]),
        "growth_per_request": {name: {"slope": value[0], "plus_minus": value[1]} for name, value in growth.items()},
    }


def faults(report: dict[str, Any]) -> list[str]:
    """What is not flat."""
    found = [f"{name}: {report[name]}" for name in ("wrong", "restarts") if report[name]]
    for name, value in report["growth_per_request"].items():
        most = GROWTH if name.endswith("bytes") else 1e-3
        if value["slope"] - value["plus_minus"] > most:
            found.append(f"{name} grows by {value['slope']:.3g} (+-{value['plus_minus']:.2g}) a request")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=20_000, help="default 20000")
    options.add_argument("--weights", type=Path, default=DEMO_WEIGHTS, help="default: the demo model")
    given = options.parse_args()
    ports: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with serve_pair(ServeOptions(ModelOptions(given.weights), **ports)) as pair:
        report = run(pair, given.requests)
    print(json.dumps(report, indent=1))
    for fault in faults(report):
        print(f"FAILED {fault}", file=sys.stderr)
    sys.exit(1 if faults(report) else 0)


if __name__ == "__main__":
    main()
