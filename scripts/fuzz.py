"""Send malformed requests to a real `spade serve`, and say what was not refused as it should be.

    python scripts/fuzz.py --count 10000

Kinds: PNG files (by the library, in this process, and through POST /v1/synthesize), KServe v2 over HTTP, and over gRPC.
A case fails where the library raises anything but LabelMapError, an HTTP answer is 500 or none, a gRPC status is
INTERNAL or UNKNOWN, a process was replaced, or the server draws another image afterwards. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import http.client
import io
import json
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2 as pb

from serving.client.client import Client
from serving.gateway.pair import Pair, serve_pair
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions
from spade_core.config import DEMO_WEIGHTS
from spade_core.maps.label_maps import LabelMapError, read_label_map

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NUMBERS = (-(2**63), -1, 0, 1, 2, 7, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**61, 2**63 - 1, 2**64)
VALUES: tuple[Any, ...] = (*NUMBERS, None, True, "", "a", "\ud800", [], {}, [[]], 0.5, 1e308, [1] * 1000, {"a": {}})
FINE = (200, 304, 400, 404, 405, 406, 413, 415, 422, 429, 503)
Outcome = tuple[bool, str]


def chunk(kind: bytes, data: bytes, right: bool = True) -> bytes:
    checksum = zlib.crc32(kind + data) ^ (0 if right else 1)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def chunks_of(file: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(SIGNATURE)
    while at + 12 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, at)
        found.append((kind, file[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def seed_pngs() -> list[bytes]:
    """Good files of every kind that is read: grey of 1 to 16 bits, palette, RGB, RGBA."""
    ids = np.random.default_rng(0).integers(0, 2, (128, 128), dtype=np.uint8)
    images = [Image.fromarray(ids), Image.fromarray(ids * 255).convert("1"), Image.fromarray(ids).convert("RGB")]
    images += [Image.fromarray(ids.astype(np.uint16)), Image.fromarray(ids).convert("P")]
    images.append(Image.fromarray(ids).convert("RGBA"))
    files = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        files.append(file.getvalue())
    return files


def bad_png(chance: random.Random, seeds: list[bytes]) -> bytes:
    """A file whose chunks, header, filters or checksums are changed, most often with the checksums set right again."""
    file = chance.choice(seeds)
    if chance.random() < 0.2:
        cut = bytearray(file)
        for _ in range(chance.randint(1, 8)):
            cut[chance.randrange(len(cut))] = chance.randrange(256)
        return bytes(cut[: chance.randint(0, len(cut))]) if chance.random() < 0.5 else bytes(cut)
    parts = chunks_of(file)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(parts))
        kind, data = parts[at]
        match chance.randrange(7):
            case 0:
                del parts[at]
                if not parts:
                    break
            case 1:
                parts.insert(chance.randrange(len(parts) + 1), (kind, data))
            case 2:
                chance.shuffle(parts)
            case 3:
                odd = bytes(chance.randrange(256) for _ in range(chance.randrange(64)))
                parts.insert(at, (chance.choice([b"tEXt", b"acTL", b"PLTE", b"tRNS", b"IDAT", b"IHDR", b"zzzz"]), odd))
            case 4 if kind == b"IHDR":
                fields = list(struct.unpack(">IIBBBBB", data)) if len(data) == 13 else [1, 1, 8, 0, 0, 0, 0]
                which = chance.randrange(7)
                fields[which] = chance.choice(NUMBERS) % (2**32 if which < 2 else 256)
                parts[at] = kind, struct.pack(">IIBBBBB", *fields)
            case 5 if kind == b"IDAT":
                pixels = bytes(chance.randrange(256) for _ in range(chance.choice([0, 10, 17_000, 70_000])))
                parts[at] = kind, zlib.compress(pixels)
            case _:
                changed = bytearray(data or b"\0")
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
                parts[at] = kind, bytes(changed)
    return SIGNATURE + b"".join(chunk(kind, data, chance.random() > 0.05) for kind, data in parts)


def changed(chance: random.Random, value: Any) -> Any:
    """A JSON value with one odd part."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        match chance.randrange(4):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return value | {chance.choice(["x", "parameters", "shape", "data"]): chance.choice(VALUES)}
        return value | {key: changed(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        return [*value[:at], changed(chance, value[at]), *value[at + 1 :]]
    return chance.choice(VALUES)


class Target:
    """A running server, and the good requests that the bad ones are made from."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.pair, self.chance = pair, random.Random(seed)
        self.pngs = seed_pngs()
        with Client(pair.grpc_url) as client:
            info = client.info()
        labels = np.zeros((1, info.height, info.width), np.uint8)
        tensor = {"name": "labels", "datatype": "UINT8", "shape": list(labels.shape), "data": labels.ravel().tolist()}
        self.request = {
            "id": "1",
            "parameters": {"sent_unix_us": 1},
            "inputs": [tensor],
            "outputs": [{"name": "image"}],
        }
        self.message = pb.ModelInferRequest(model_name="spade")
        self.message.inputs.add(name="labels", datatype="UINT8", shape=labels.shape)
        self.message.raw_input_contents.append(labels.tobytes())
        self.labels = labels
        self.channel = grpc.insecure_channel(pair.grpc_url.removeprefix("grpc://"))
        self.infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def png_here(self) -> Outcome:
        try:
            read_label_map(bad_png(self.chance, self.pngs), max_pixels=1 << 24)
        except LabelMapError:
            return True, "refused"
        except Exception as error:  # noqa: BLE001 - this is what the fuzzer looks for
            return False, repr(error)
        return True, "read"

    def png_http(self) -> Outcome:
        return self._post("/v1/synthesize", bad_png(self.chance, self.pngs), {"Content-Type": "image/png"})

    def v2_http(self) -> Outcome:
        body = json.dumps(changed(self.chance, copy.deepcopy(self.request))).encode()
        headers = {}
        if self.chance.random() < 0.2:
            headers["Inference-Header-Content-Length"] = str(self.chance.choice([*NUMBERS, len(body), "x"]))
        if self.chance.random() < 0.1:
            body = gzip.compress(body)[: self.chance.randint(1, 10**6)]
            headers["Content-Encoding"] = self.chance.choice(["gzip", "deflate", "br"])
        if self.chance.random() < 0.1:
            body = body[: self.chance.randrange(len(body) + 1)]
        return self._post(f"/v2/models/{self.chance.choice(['spade', 'spade_image'])}/infer", body, headers)

    def v2_grpc(self) -> Outcome:
        message = pb.ModelInferRequest()
        message.CopyFrom(self.message)
        tensor = message.inputs[0]
        match self.chance.randrange(6):
            case 0:
                tensor.shape[self.chance.randrange(3)] = self.chance.choice(NUMBERS[:-1])
            case 1:
                del tensor.shape[:]
                tensor.shape.extend(self.chance.choices(NUMBERS[:-1], k=self.chance.randrange(6)))
            case 2:
                tensor.datatype = self.chance.choice(["BYTES", "FP32", "", "INT64", "BOOL"])
            case 3:
                message.raw_input_contents[0] = bytes(self.chance.choice([0, 1, 16383, 16385, 10**6]))
            case 4:
                tensor.contents.uint_contents.extend([1] * self.chance.randrange(20_000))
                if self.chance.random() < 0.5:
                    del message.raw_input_contents[:]
        raw = bytearray(message.SerializeToString())
        if self.chance.random() < 0.5:
            for _ in range(self.chance.randint(1, 4)):
                raw[self.chance.randrange(min(len(raw), 120))] = self.chance.randrange(256)
        try:
            self.infer(bytes(raw), timeout=60)
        except grpc.RpcError as error:
            code = error.code()
            return code not in (
                grpc.StatusCode.INTERNAL,
                grpc.StatusCode.UNKNOWN,
            ), f"{code.name} {error.details()[:60]}"
        return True, "OK"

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> Outcome:
        connection = http.client.HTTPConnection("127.0.0.1", self.pair.options.http_port, timeout=60)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return False, repr(error)
        finally:
            connection.close()
        return answer.status in FINE, str(answer.status)

    def image(self) -> Any:
        with Client(self.pair.grpc_url) as client:
            return client.synthesize(self.labels).images


def run(pair: Pair, count: int, seed: int, show: Callable[[str], None]) -> int:
    """Send `count` cases of each kind. Returns the number of failures."""
    target, failures = Target(pair, seed), 0
    before = target.image()
    for name in ("png_here", "png_http", "v2_http", "v2_grpc"):
        began, outcomes = time.monotonic(), Counter[str]()
        for case in range(count):
            good, outcome = getattr(target, name)()
            outcomes[outcome.split()[0]] += 1
            if not good:
                failures += 1
                show(f"FAILED {name}, seed {seed}, case {case}: {outcome}")
        shown = ", ".join(f"{outcome} {times}" for outcome, times in outcomes.most_common(8))
        show(f"{name}: {count} cases in {time.monotonic() - began:.0f} s: {shown}")
    target.channel.close()
    if (target.image() != before).any():
        failures += 1
        show("FAILED: the server draws another image than before")
    if restarts := pair.status.status.restarts:
        failures += 1
        show(f"FAILED: processes were replaced: {restarts}")
    return failures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=1000, help="cases of each kind (default 1000)")
    options.add_argument("--seed", type=int, default=0, help="of the cases (default 0)")
    options.add_argument("--weights", type=Path, default=DEMO_WEIGHTS, help="default: the demo model")
    given = options.parse_args()
    ports: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with serve_pair(ServeOptions(ModelOptions(given.weights), **ports)) as pair:
        failures = run(pair, given.count, given.seed, lambda line: print(line, flush=True))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
