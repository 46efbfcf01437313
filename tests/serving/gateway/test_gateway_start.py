"""The gateway's process: its doors open, and they lead to the model."""

from __future__ import annotations

import io
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from served import blocks, png

from serving.client.client import Client
from serving.gateway.pair import Pair


def test_a_png_as_the_body_is_answered_with_the_image_of_the_grpc_door(gateway: Pair) -> None:
    labels = blocks(1)
    request = urllib.request.Request(f"{gateway.http_url}/v1/synthesize", png(labels[0]))
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "image/png"
        image = np.asarray(Image.open(io.BytesIO(answer.read())))
    with Client(gateway.grpc_url) as client:
        np.testing.assert_array_equal(client.synthesize(labels).images[0], image)


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_health(gateway: Pair, path: str) -> None:
    with urllib.request.urlopen(f"{gateway.http_url}/{path}", timeout=10) as answer:
        assert answer.status == 200


def test_the_metrics_of_triton_and_its_models_are_on_the_metrics_port(gateway: Pair) -> None:
    with urllib.request.urlopen(gateway.metrics_url, timeout=10) as answer:
        text = answer.read().decode()
    assert 'spade_requests_total{engine="cpu"' in text
    assert "nv_inference_count" in text


def test_a_wrong_body_is_a_problem_in_the_words_of_the_library(gateway: Pair) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{gateway.http_url}/v1/synthesize", b"nonsense", timeout=10)
    with caught.value as answer:
        assert answer.code == 400
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert b"urn:spade:problem:invalid-request" in answer.read()
