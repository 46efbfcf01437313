"""The client: without a server, on a wrong port, out of time, and with a request that is cancelled."""

from __future__ import annotations

import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from scraped import moved_since, scrape_at_rest
from served import blocks, png
from tritonclient.utils import InferenceServerException

from serving.client.client import Client, ServerError
from serving.protocol import pad_files
from serving.triton.server import Server


@pytest.mark.parametrize("url", ["127.0.0.1:8001", "ftp://host:1", "grpc://", "http://host:80/v2/models"])
def test_urls_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"grpc://HOST:PORT or http://HOST:PORT, .* but got"):
        Client(url)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_without_a_server_the_error_says_how_to_start_one(protocol: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"{protocol}://127.0.0.1:{free.getsockname()[1]}"
        with Client(url) as client:
            assert not client.ready()
            with pytest.raises(
                ServerError, match=f"expected a server at {url} .* start one with `spade serve`"
            ) as caught:
                client.synthesize(np.zeros((1, 256, 256), np.uint8))
            assert caught.value.retryable


@pytest.mark.parametrize(
    ("code", "text", "words", "status"),
    [
        (grpc.StatusCode.CANCELLED, "CANCELLED", "was cut", "unavailable"),
        (
            grpc.StatusCode.UNKNOWN,
            "Stream removed (Data frame with END_STREAM flag received)",
            "was cut",
            "unavailable",
        ),
        (
            grpc.StatusCode.UNKNOWN,
            "Stream removed (Deadline Exceeded)",
            "within 300 s but got none",
            "deadline_exceeded",
        ),
    ],
)
def test_an_answer_that_was_cut_may_be_asked_for_again(
    code: grpc.StatusCode, text: str, words: str, status: str
) -> None:
    """What HAProxy tells of a server that was killed in the middle of an answer, and gRPC of its own time limit."""

    def cut(_request: bytes, context: Any) -> bytes:
        context.abort(code, text)
        raise AssertionError("unreachable: abort raises")

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(cut)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with Client(f"grpc://127.0.0.1:{port}") as client, pytest.raises(ServerError, match=words) as caught:
                client.synthesize(blocks(1))
        finally:
            server.stop(None).wait()
    assert caught.value.status == status


@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\nContent-Length: 9732\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nConte"])
def test_an_answer_over_http_that_was_cut_may_be_asked_for_again(begun: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 20)
                connection.sendall(begun)

        answering = pool.submit(answer)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Client(url) as client, pytest.raises(ServerError, match="was cut") as caught:
            client.synthesize(np.zeros((1, 8, 8), np.uint8))
        answering.result(30)
    assert caught.value.retryable


@pytest.mark.parametrize(("protocol", "port"), [("http", "grpc_port"), ("grpc", "http_port"), ("http", "metrics_port")])
def test_a_port_of_another_protocol_is_said_to_be_one(demo_server: Server, protocol: str, port: str) -> None:
    url = f"{protocol}://127.0.0.1:{getattr(demo_server.options, port)}"
    with Client(url) as client, pytest.raises(ServerError, match=f"expected {protocol} at {url} .* another protocol"):
        client.synthesize(blocks(1))
    with Client(url) as client:
        assert client.ready() == (port == "metrics_port")  # Triton answers questions of health there too


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_takes_too_long_is_given_up(demo_server: Server, protocol: str) -> None:
    with Client(getattr(demo_server, f"{protocol}_url"), timeout_s=0.05) as client:
        with pytest.raises(ServerError, match=r"within 0\.05 s but got none") as caught:
            client.synthesize(blocks(1, count=4))
        assert caught.value.status == "deadline_exceeded"
    with Client(demo_server.grpc_url) as client:
        assert client.synthesize(blocks(1)).images.shape == (1, 256, 256, 3)


@pytest.mark.parametrize("model", ["spade", "spade_image"])
def test_a_cancelled_request_is_skipped_and_the_next_one_works(demo_server: Server, model: str) -> None:
    """Six batches wait; the last one is cancelled, and draws nothing."""
    address = demo_server.grpc_url.removeprefix("grpc://")
    maps = blocks(1, count=8)
    name, tensor = ("labels", maps) if model == "spade" else ("label_map", pad_files([png(one) for one in maps])[0])
    answers: list[Future[object]] = []

    def send(raw: Any) -> Any:
        answer: Future[object] = Future()
        answers.append(answer)
        prepared = triton_grpc.InferInput(name, list(tensor.shape), "UINT8")
        prepared.set_data_from_numpy(tensor)
        return raw.async_infer(model, [prepared], lambda result, error: answer.set_result(error or result))

    before = scrape_at_rest(demo_server)
    with triton_grpc.InferenceServerClient(address) as raw:
        calls = [send(raw) for _ in range(6)]
        time.sleep(0.2)  # the last one has reached the server, and waits behind five batches
        calls[-1].cancel()
        results = [answer.result(120) for answer in answers]
    assert "CANCELLED" in str(results[-1])
    assert not [result for result in results[:-1] if isinstance(result, InferenceServerException)]
    least = {"spade_images_total": 40.0, f"{model}_requests_total cancelled": 1.0}
    assert moved_since(demo_server, before, least)["spade_images_total"] == 40
    with Client(demo_server.grpc_url) as client:
        assert client.synthesize(blocks(1)).images.shape == (1, 256, 256, 3)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("model", "known"),
    [("spade", "session, sent_unix_us"), ("spade_image", "format, quality, colours, size, sent_unix_us")],
)
def test_a_parameter_that_nobody_knows_is_an_error(demo_server: Server, protocol: str, model: str, known: str) -> None:
    tensors = {"labels": blocks(1)} if model == "spade" else {"label_map": pad_files([png(blocks(1)[0])])[0]}
    text = rf"\[{model}\] expected request parameters out of {known} but got formt"
    with Client(getattr(demo_server, f"{protocol}_url")) as client:
        with pytest.raises(ServerError, match=text) as refused:
            client._infer(model, dict(tensors), {"formt": "jpeg"})
        assert refused.value.status == "invalid_argument"
