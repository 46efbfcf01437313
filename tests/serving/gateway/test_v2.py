"""The KServe v2 doors: what ends or bleeds Triton 24.10 is refused before Triton, and v2 clients work unmodified."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import urllib.error
import urllib.request
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from served import blocks, png
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from serving.client.client import Client, ServerError
from serving.gateway.pair import Pair

LABELS = blocks(1)


def grpc_address(pair: Pair) -> str:
    return pair.grpc_url.removeprefix("grpc://")


def http_address(pair: Pair) -> str:
    return pair.http_url.removeprefix("http://")


def post(pair: Pair, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """POST to the HTTP door: the status, and the JSON of the answer."""
    connection = http.client.HTTPConnection(http_address(pair), timeout=60)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def infer_json(
    name: str = "labels", shape: list[int] | None = None, data: Any = None, datatype: str = "UINT8"
) -> bytes:
    tensor = {"name": name, "shape": shape or [1, 256, 256], "datatype": datatype}
    tensor["data"] = LABELS.ravel().tolist() if data is None else data
    return json.dumps({"inputs": [tensor]}).encode()


def still_answers(pair: Pair) -> None:
    with Client(pair.grpc_url) as client:
        assert client.synthesize(LABELS).images.shape == (1, 256, 256, 3)
    assert pair.status.status.restarts == {}


# Shapes: the products of the first ones wrap to 0 in 64 bits, and Triton never answers the last ones.
SHAPES = {
    "wraps": ("spade", "labels", [1, 2147483648, 8589934592], "each 1 or more|at most 1048576 pixels|below 2\\^31"),
    "files that wrap": ("spade_image", "label_map", [8, 2305843009213693952], "at most .* bytes|below 2\\^31"),
    "zeros": ("spade", "labels", [0, 0, 0], "1 or more"),
    "a zero": ("spade", "labels", [2**40, 0, 255], "1 or more"),
    "negative": ("spade", "labels", [-1, -256, 256], "1 or more"),
    "many maps": ("spade", "labels", [9, 256, 256], "at most 8 maps in a request but got 9"),
    "rank": ("spade", "labels", [65536], r"3 dimensions .* but got 1"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_that_end_triton_are_refused_over_grpc(gateway: Pair, kind: str) -> None:
    model, name, shape, text = SHAPES[kind]
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype="UINT8", shape=shape)
    request.raw_input_contents.append(b"")
    with grpc.insecure_channel(grpc_address(gateway)) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            infer(request.SerializeToString(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.match(text)


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_that_end_triton_are_refused_over_http(gateway: Pair, kind: str) -> None:
    model, name, shape, text = SHAPES[kind]
    status, answer = post(gateway, f"/v2/models/{model}/infer", infer_json(name, shape, []))
    assert status == 400
    assert re.search(text, answer["error"]), answer


BODIES: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "nested JSON": (b'{"inputs":' + b"[" * 40_000 + b"]" * 40_000 + b"}", {}, 400, "nested too deep"),
    "nested data": (infer_json(data=json.loads("[" * 90 + "]" * 90)), {}, 400, "65536 values of UINT8"),
    "no JSON": (b"label map", {}, 400, "expected JSON"),
    "a list": (b"[1, 2]", {}, 400, "the body as an object but got list of 2"),
    "NaN": (b'{"inputs": NaN}', {}, 400, "numbers of JSON but got NaN"),
    "ids that wrap": (infer_json(data=[256] * 65536), {}, 400, "values of labels 0..255 but got 256"),
    "fractions": (infer_json(data=[0.5] * 65536), {}, 400, "65536 values of UINT8"),
    "texts": (infer_json(data=["a"] * 65536), {}, 400, "65536 values of UINT8"),
    "few values": (infer_json(data=[1]), {}, 400, "65536 values of labels but got 1"),
    "another type": (infer_json(datatype="BYTES"), {}, 400, "labels as UINT8 but got 'BYTES'"),
    "another name": (infer_json(name="label"), {}, 400, "inputs out of labels, label_ids, instances, style, seed"),
    "long header": (b"{}", {"Inference-Header-Content-Length": "9" * 18}, 400, "the JSON's length as 0..2"),
    "no number": (b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "as a number"),
    "short binary": (
        json.dumps(
            {
                "inputs": [
                    {
                        "name": "labels", "shape": [1, 256, 256], "datatype": "UINT8",
                        "parameters": {"binary_data_size": 65536},
                    }
                ]
            }
        ).encode(), {}, 400, "65536 bytes of labels",
    ),
    "bomb": (gzip.compress(bytes(200 << 20)), {"Content-Encoding": "gzip"}, 413, "unpacks to more"),
    "broken gzip": (b"\x1f\x8b123", {"Content-Encoding": "gzip"}, 400, "unpacked"),
    "brotli": (b"{}", {"Content-Encoding": "br"}, 415, "gzip or deflate"),
    "too large": (b"", {"Content-Length": str(1 << 40)}, 413, "at most 67108864 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_that_end_or_bleed_triton_are_refused(gateway: Pair, kind: str) -> None:
    body, headers, expected, text = BODIES[kind]
    status, answer = post(gateway, "/v2/models/spade/infer", body, headers)
    assert (status, text in answer["error"]) == (expected, True), answer


def test_a_body_in_chunks_of_one_byte_is_read(gateway: Pair) -> None:
    body = infer_json()[:2000].rstrip(b",") + b"]}]}"
    with socket.create_connection(http_address(gateway).split(":"), timeout=60) as connection:
        connection.sendall(
            b"POST /v2/models/spade/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body)))
            + b"0\r\n\r\n"
        )
        assert b"400 Bad Request" in connection.recv(65536)


def test_nothing_of_all_this_ended_a_process(gateway: Pair) -> None:
    still_answers(gateway)


def test_images_are_the_same_through_every_form_of_a_request(gateway: Pair) -> None:
    with Client(gateway.grpc_url) as client:
        expected = client.synthesize(LABELS).images
    with Client(gateway.http_url) as client:
        np.testing.assert_array_equal(client.synthesize(LABELS).images, expected)
    nested = infer_json(data=LABELS.tolist())
    for body in (infer_json(), nested, gzip.compress(nested)):
        headers = {"Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
        status, answer = post(gateway, "/v2/models/spade/infer", body, headers)
        assert status == 200
        image = next(output for output in answer["outputs"] if output["name"] == "image")
        np.testing.assert_array_equal(np.array(image["data"], np.uint8).reshape(image["shape"]), expected)


@pytest.mark.parametrize("api", [triton_grpc, triton_http])
def test_tritonclient_reads_metadata_configuration_and_statistics(gateway: Pair, api: Any) -> None:
    address = grpc_address(gateway) if api is triton_grpc else http_address(gateway)
    as_json = {"as_json": True} if api is triton_grpc else {}
    with api.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("spade")
        server = client.get_server_metadata(**as_json)
        assert server["name"] == "triton"
        assert not [name for name in server["extensions"] if "shared_memory" in name or "repository" in name]
        assert client.get_model_metadata("spade", **as_json)["inputs"][0]["name"] == "labels"
        config = client.get_model_config("spade", **as_json)
        config = config.get("config", config)
        assert config["max_batch_size"] == 8
        assert not config.get("parameters")  # they name paths of the machine
        assert client.get_inference_statistics("spade", **as_json)["model_stats"][0]["name"] == "spade"
        index = client.get_model_repository_index(**as_json)
        models = index["models"] if isinstance(index, dict) else index
        assert {model["name"] for model in models} == {"spade", "spade_image"}
        with pytest.raises(InferenceServerException, match="shut"):
            client.unload_model("spade")
        with pytest.raises(InferenceServerException, match="shut"):
            client.register_system_shared_memory("region", "/key", 16)
        tensor = api.InferInput("labels", list(LABELS.shape), "UINT8")
        tensor.set_data_from_numpy(LABELS)
        output = api.InferRequestedOutput("image")
        output.set_shared_memory("region", 16)
        with pytest.raises(InferenceServerException, match=r"shared_memory.* is shut here"):
            client.infer("spade", [tensor], outputs=[output])


def test_a_stream_answers_every_request_under_its_id(gateway: Pair) -> None:
    answers: dict[str, Any] = {}

    def heard(result: Any, error: Any) -> None:
        answers[result.get_response().id if error is None else f"error {len(answers)}"] = result or error

    with triton_grpc.InferenceServerClient(grpc_address(gateway)) as client:
        client.start_stream(heard)
        for i in range(5):
            tensor = triton_grpc.InferInput("labels", [1, 256, 256 - (i == 4)], "UINT8")
            tensor.set_data_from_numpy(LABELS[:, :, : 256 - (i == 4)])
            client.async_stream_infer("spade", [tensor], request_id=str(i))
        client.stop_stream()
    assert set(answers) >= {"0", "1", "2", "3"}
    assert len(answers) == 5
    np.testing.assert_array_equal(answers["0"].as_numpy("image"), answers["3"].as_numpy("image"))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_errors_of_the_models_pass_in_their_own_words(gateway: Pair, protocol: str) -> None:
    with Client(getattr(gateway, f"{protocol}_url")) as client:
        with pytest.raises(ServerError, match=r"ids 0\.\.15 but got 77") as caught:
            client.synthesize(np.full((1, 256, 256), 77, np.uint8))
        assert caught.value.status == "invalid_argument"
        with pytest.raises(ServerError, match=r"label_map 0: .*expected a PNG"):
            client.synthesize_image([b"no image"])
        files = client.synthesize_image([png(LABELS[0])] * 3, format="jpeg").images
        assert [file[:3] for file in files] == [b"\xff\xd8\xff"] * 3


def test_an_unknown_model_and_path_are_not_found(gateway: Pair) -> None:
    assert post(gateway, "/v2/models/other/infer", b"{}")[0] == 404
    assert post(gateway, "/v2/repository/models/spade/unload", b"{}")[0] == 404
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{gateway.http_url}/v2/systemsharedmemory/status", timeout=10)
    caught.value.close()
    assert caught.value.code == 404
