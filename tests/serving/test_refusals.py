"""Both models refuse alike: one table of cases, asked of `spade` and of `spade_image`, over gRPC and over HTTP."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from scraped import moved_since, scrape_at_rest
from served import blocks, png

from serving.client.client import Client, ServerError
from serving.protocol import MODELS
from serving.triton.metrics import FLUSH_S
from serving.triton.protocol import mark_outcome, read_outcome
from serving.triton.server import Server

LABELS = blocks(1, size=64, classes=8)
BAD_LABELS = LABELS.copy()
BAD_LABELS[0, 7, 9] = 99
QUEUE_SIZE = 4  # of the server `tiny_server`

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A request that is refused, and how the refusal reads."""

    text: str
    outcome: str
    status: str
    labels: Pixels = field(default_factory=lambda: LABELS)
    instances: Pixels | None = field(default_factory=lambda: LABELS)
    seed: int | None = None
    timeout_us: int = 0
    full: bool = False


CASES = {
    "label id": Case(
        r"got 99 in 1 pixels, first at item 0, row 7, column 9", "invalid", "invalid_argument", BAD_LABELS
    ),
    "no instances": Case(
        "expected an instance map for 'tiny' but got none", "invalid", "invalid_argument", instances=None
    ),
    "seed without style": Case("no style input, but got seed; leave it out", "invalid", "invalid_argument", seed=3),
    "waited too long": Case(r"longer than 0\.001 s; try again later", "refused", "unavailable", timeout_us=1000),
    "full queue": Case(
        rf"at most {QUEUE_SIZE} label maps to wait .* --queue-size", "refused", "unavailable", full=True
    ),
}


def ask(client: Client, model: str, case: Case) -> None:
    if case.timeout_us:
        client._connection.triton.infer = partial(client._connection.triton.infer, timeout=case.timeout_us)
    if model == "spade":
        client.synthesize(
            case.labels, None if case.instances is None else case.instances.astype(np.int32), seed=case.seed
        )
    else:
        client.synthesize_image(
            [png(case.labels[0])], None if case.instances is None else [png(case.instances[0])], seed=case.seed
        )


@contextlib.contextmanager
def full_queue(server: Server) -> Iterator[None]:
    """Twice as many callers as may wait in `spade`. When a batch leaves the queue, other callers fill it at once."""
    done = threading.Event()

    def call() -> None:
        with Client(server.grpc_url) as client:
            while not done.is_set():
                try:
                    client.synthesize(LABELS, LABELS.astype(np.int32))
                except ServerError as error:
                    if not error.retryable:
                        raise
                    done.wait(0.02)

    with ThreadPoolExecutor(2 * QUEUE_SIZE) as pool:
        callers = [pool.submit(call) for _ in range(2 * QUEUE_SIZE)]
        try:
            yield
        finally:
            done.set()
    for caller in callers:
        caller.result()


def refused(ask_once: Callable[[], None], server: Server, case: Case) -> ServerError:
    with full_queue(server) if case.full else contextlib.nullcontext():
        end = time.monotonic() + (60 if case.full else 0)
        while True:
            try:
                ask_once()
            except ServerError as error:
                return error
            # A request may arrive before the callers, or between a batch and the next callers.
            assert time.monotonic() < end, "the server answered with an image"


PROTOCOLS = ("grpc", "http")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", CASES)
def test_a_refusal_has_its_code_and_its_words(tiny_server: Server, kind: str, model: str, protocol: str) -> None:
    case = CASES[kind]
    with Client(getattr(tiny_server, f"{protocol}_url")) as client:
        error = refused(lambda: ask(client, model, case), tiny_server, case)
    assert error.status == case.status
    assert error.retryable == (case.outcome == "refused")
    with pytest.raises(ServerError, match=rf"^\[\w+\] .*{case.text}"):  # no mark is left in the message
        raise error


@pytest.mark.parametrize("model", MODELS)
def test_a_refusal_is_counted_by_its_outcome(tiny_server: Server, model: str) -> None:
    time.sleep(2 * FLUSH_S)  # until the counts of earlier tests are written
    before, expected = scrape_at_rest(tiny_server), Counter[str]()
    for case, protocol in itertools.product(CASES.values(), PROTOCOLS):
        if not case.full:  # filling the queue may have other requests refused
            with Client(getattr(tiny_server, f"{protocol}_url")) as client, pytest.raises(ServerError):
                ask(client, model, case)
            expected[f"{model}_requests_total {case.outcome}"] += 1
    moved = moved_since(tiny_server, before, dict(expected))
    outcomes = {name: moved[name] for name in moved if name.startswith(f"{model}_requests_total ") and moved[name]}
    assert outcomes == expected


def test_an_outcome_survives_the_way_in_a_message() -> None:
    assert read_outcome(mark_outcome("[spade] expected <b> but got a", "invalid")) == (
        "invalid", "[spade] expected <b> but got a",
    )  # fmt: skip
    assert read_outcome("[spade] <b> expected") == (None, "[spade] <b> expected")
