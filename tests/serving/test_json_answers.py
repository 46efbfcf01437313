"""Answers over HTTP as JSON: what a strict parser reads, without tritonclient's binary extension."""

from __future__ import annotations

import json
import time
import urllib.error
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


def infer(server: Server, model: str, inputs: Any = None, **parameters: Any) -> dict[str, list[float]]:
    """The outputs of a JSON request, read by a parser that refuses NaN and Infinity as Node's does."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    body = json.dumps({"inputs": inputs or INPUTS[model], "parameters": parameters}).encode()
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


def test_ids_above_255_are_refused_in_the_wider_input(tiny_server: Server) -> None:
    ids, instances = LABELS.astype(np.int32), INPUTS["spade"][1]
    image = infer(tiny_server, "spade", [tensor("label_ids", "INT32", ids), instances])["image"]
    assert image == infer(tiny_server, "spade")["image"]
    ids[0, 7, 9] = 256 + ids[0, 7, 9]  # wraps to a valid id in a UINT8 input
    with pytest.raises(urllib.error.HTTPError) as caught:
        infer(tiny_server, "spade", [tensor("label_ids", "INT32", ids), instances])
    assert caught.value.code == 400
    assert (
        f"expected label_ids 0..255 but got {ids[0, 7, 9]}, first at item 0, row 7, column 9"
        in json.load(caught.value)["error"]
    )
