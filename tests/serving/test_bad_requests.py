"""Bad requests: each gets an error that says what to fix, and the next request works."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from served import blocks, png
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.client.client import Client, Result, ServerError
from serving.triton.server import Server

GOOD = blocks(1)
GOOD_PNG = png(GOOD[0])


def bomb() -> bytes:
    """A PNG whose header promises 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def with_id(value: int) -> np.ndarray:
    labels = GOOD.copy()
    labels[0, 7, 9] = value
    return labels


BAD: dict[str, tuple[Callable[[Client], object], str]] = {
    "dtype": (lambda c: c.synthesize(GOOD.astype(np.int32)), "data-type is 'INT32', but model 'spade' expects 'UINT8'"),  # type: ignore[arg-type]
    "size": (lambda c: c.synthesize(GOOD[:, :250]), r"Expected \[-1,256,256\], got \[1,250,256\]"),
    "label id": (
        lambda c: c.synthesize(with_id(16)),
        r"ids 0\.\.15 but got 16 in 1 pixels, first at item 0, row 7, column 9",
    ),
    "large map": (
        lambda c: c.synthesize(np.zeros((1, 2048, 1024), np.uint8)),
        r"Expected \[-1,256,256\], got \[1,2048,1024\]",
    ),
    "large batch": (  # `Client` splits a batch, other clients may not
        lambda c: c._infer("spade", {"labels": GOOD.repeat(9, 0)}, {}),
        "batch-size must be <= 8 for 'spade'",
    ),
    "short style": (lambda c: c.synthesize(GOOD, style=np.zeros((1, 255), np.float32)), r"style"),
    "NaN style": (
        lambda c: c.synthesize(GOOD, style=np.full((1, 256), np.nan, np.float32)),
        "finite style but got nan",
    ),
    "negative seed": (lambda c: c.synthesize(GOOD, seed=-1), "seed of 0 or more but got -1"),
    "surplus instances": (lambda c: c.synthesize(GOOD, GOOD.astype(np.int32)), "expected no instance map"),
    "truncated PNG": (lambda c: c.synthesize_image([GOOD_PNG[:-60]]), "label_map 0: .*expected a whole PNG"),
    "no image": (lambda c: c.synthesize_image([b"once upon a time"]), "label_map 0: .*expected a PNG"),
    "empty file": (lambda c: c.synthesize_image([b"", GOOD_PNG]), "label_map 0"),
    "bomb": (lambda c: c.synthesize_image([bomb()]), "label_map 0: .*30000"),
    "format": (lambda c: c.synthesize_image([GOOD_PNG], format="gif"), "format png, jpeg, webp but got 'gif'"),
    "quality": (lambda c: c.synthesize_image([GOOD_PNG], format="jpeg", quality=101), r"1\.\.100 but got 101"),
}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_says_what_to_fix(demo_server: Server, protocol: str, kind: str) -> None:
    ask, text = BAD[kind]
    with Client(getattr(demo_server, f"{protocol}_url")) as client:
        with pytest.raises(ServerError, match=text) as caught:
            ask(client)
        assert caught.value.status == "invalid_argument"
        assert not caught.value.retryable


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_good_request_works_after_all_of_them(demo_server: Server, protocol: str) -> None:
    with Client(getattr(demo_server, f"{protocol}_url")) as client:
        before = client.synthesize(GOOD).images
        for ask, _ in BAD.values():
            with pytest.raises(ServerError):
                ask(client)
            assert client.ready()
        np.testing.assert_array_equal(client.synthesize(GOOD).images, before)


def test_requests_no_server_could_answer_never_leave(demo_server: Server) -> None:
    with Client(demo_server.grpc_url) as client:
        with pytest.raises(ValueError, match=r"labels \[N, H, W\].* but got shape \[256, 256\]"):
            client.synthesize(GOOD[0])
        with pytest.raises(ValueError, match=r"N of 1 or more, but got shape \[0, 256, 256\]"):
            client.synthesize(GOOD[:0])
        with pytest.raises(ValueError, match="one label map or more but got none"):
            client.synthesize_image([])


@pytest.mark.parametrize("shape", [[256, 256], [1, 256], [1, 1, 256, 256], [0, 256, 256], [1, 0, 256]])
def test_the_server_itself_refuses_wrong_ranks_and_empty_batches(demo_server: Server, shape: list[int]) -> None:
    with triton_grpc.InferenceServerClient(demo_server.grpc_url.removeprefix("grpc://")) as raw:
        labels = triton_grpc.InferInput("labels", shape, "UINT8")
        labels.set_data_from_numpy(np.zeros(shape, np.uint8))
        with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
            raw.infer("spade", [labels])
    with Client(demo_server.grpc_url) as client:
        assert client.synthesize(GOOD).images.shape == (1, 256, 256, 3)


def test_missing_instances_and_surplus_seed_of_a_model_without_style(tiny_server: Server) -> None:
    labels = blocks(1, size=64, classes=8)
    with Client(tiny_server.grpc_url) as client:
        with pytest.raises(ServerError, match="expected an instance map for 'tiny' but got none"):
            client.synthesize(labels)
        with pytest.raises(ServerError, match="no style input, but got seed; leave it out"):
            client.synthesize(labels, labels.astype(np.int32), seed=0)
        with pytest.raises(ServerError, match=r"multiples of 32 .* but got 64x48"):
            client.synthesize(labels[:, :, :48], labels[:, :, :48].astype(np.int32))
        assert client.synthesize(labels, labels.astype(np.int32)).images.shape == (1, 64, 64, 3)


def test_a_bad_request_inside_a_batch_fails_alone(tiny_server: Server) -> None:
    good = blocks(2, count=2, size=64, classes=8)
    bad = np.full((1, 64, 64), 99, np.uint8)

    together = Barrier(3)

    def ask(labels: np.ndarray) -> Result | ServerError:
        with Client(tiny_server.grpc_url) as client:
            assert client.ready()
            together.wait()
            try:
                return client.synthesize(labels, labels.astype(np.int32))
            except ServerError as error:
                return error

    with ThreadPoolExecutor(3) as clients:
        first, middle, last = clients.map(ask, [good[:1], bad, good[1:]])
    assert isinstance(middle, ServerError)
    assert "got 99" in str(middle)
    assert isinstance(first, Result)
    assert isinstance(last, Result)
    # The two good requests ran as one batch; the bad one was refused before the queue.
    assert first.timings.batch_size == last.timings.batch_size == 2


def test_a_full_queue_refuses_at_once(tiny_server: Server) -> None:
    labels = blocks(3, count=8, size=64, classes=8)

    def ask(_: int) -> str:
        with Client(tiny_server.grpc_url) as client:
            try:
                client.synthesize(labels, labels.astype(np.int32))
            except ServerError as error:
                return f"{error} ({error.status}, retryable {error.retryable})"
            return "ok"

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(ask, range(32)))
    assert "ok" in answers
    refused = [answer for answer in answers if answer != "ok"]
    assert refused
    text = r"\[spade\] expected at most 4 label maps to wait but 8 do, and this request has 8 more; try again later, .*"
    assert all(re.fullmatch(f"{text} --queue-size \\(unavailable, retryable True\\)", answer) for answer in refused)
    with Client(tiny_server.http_url) as client:
        assert client.ready()


def test_a_request_that_waits_longer_than_its_own_timeout_is_refused(tiny_server: Server) -> None:
    labels = blocks(4, count=1, size=64, classes=8)
    inputs = []
    for name, tensor in {"labels": labels, "instances": labels.astype(np.int32)}.items():
        prepared = triton_grpc.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
        prepared.set_data_from_numpy(tensor)
        inputs.append(prepared)
    client = triton_grpc.InferenceServerClient(tiny_server.grpc_url.removeprefix("grpc://"))
    with contextlib.closing(client), pytest.raises(InferenceServerException, match=r"longer than 0\.001 s") as caught:
        client.infer("spade", inputs, timeout=1000)  # microseconds; no other request arrives to fill the batch
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
