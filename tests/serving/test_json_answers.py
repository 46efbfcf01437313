"""Answers over HTTP as JSON: what a strict parser reads, without tritonclient's binary extension."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import numpy as np
import pytest
from served import blocks, png

from serving.triton.server import Server

LABELS = blocks(1, size=64, classes=8)


def tensor(name: str, dtype: str, array: Any) -> dict[str, Any]:
    return {"name": name, "datatype": dtype, "shape": list(array.shape), "data": array.reshape(-1).tolist()}


INPUTS = {
    "spade": [tensor("labels", "UINT8", LABELS), tensor("instances", "INT32", LABELS.astype(np.int32))],
    "spade_image": [
        tensor(name, "UINT8", np.frombuffer(png(LABELS[0]), np.uint8)[None]) for name in ("label_map", "instance_map")
    ],
}


def infer(server: Server, model: str, **parameters: Any) -> dict[str, list[float]]:
    """The outputs of a JSON request, read by a parser that refuses NaN and Infinity as Node's does."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    body = json.dumps({"inputs": INPUTS[model], "parameters": parameters}).encode()
    url = f"{server.http_url}/v2/models/{model}/infer"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        outputs = json.loads(answer.read(), parse_constant=refuse)["outputs"]
    return {output["name"]: output["data"] for output in outputs}


@pytest.mark.parametrize("model", INPUTS)
def test_unknown_timings_are_minus_one(tiny_server: Server, model: str) -> None:
    timings = infer(tiny_server, model)["timings"]
    assert timings[0] == -1
    assert all(value >= 0 for value in timings[1:])


@pytest.mark.parametrize("model", INPUTS)
def test_a_clock_that_is_ahead_gives_no_negative_queue_time(tiny_server: Server, model: str) -> None:
    ahead = int((time.time() + 3600) * 1e6)
    assert infer(tiny_server, model, sent_unix_us=ahead)["timings"][0] == 0
