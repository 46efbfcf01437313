"""Load on a server: closed loops of clients, open loops of arrivals, and the figures of both. Knows no protocol.

An open loop counts the latency of a request from the time the request was due. A sender that waits for a slow answer
sends the next request late, and the server caused that delay, so counting from the sending would hide the delay
("coordinated omission").
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

WINDOWS = 3  # windows that must agree; the figures of a loop are of these windows
TOLERANCE = 0.1  # two windows agree where they differ by this share or less


@dataclass(frozen=True)
class Reply:
    """What an answer reports: seconds in the queue, in the engine, and from the start of the batch to the answer."""

    images: int
    queue_s: float
    engine_s: float
    total_s: float
    batch_size: int


@dataclass(frozen=True)
class Sample:
    """One request. Times are seconds since the start of the loop. `reply` is None where the server refused."""

    number: int
    due_s: float
    sent_s: float
    done_s: float
    reply: Reply | None

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s


Send = Callable[[int], Reply | None]
"""Sends request number k and waits for the answer; None where the server refused."""
Connect = Callable[[], AbstractContextManager[Send]]


# ---- Arithmetic ----


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0..1) of the values does not exceed; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def arrivals(rate: float, seconds: float, kind: str, seed: int = 0) -> list[float]:
    """When requests are due in [0, seconds): `fixed` every 1 / rate s, `poisson` at random with that mean gap."""
    if kind == "fixed":
        return [k / rate for k in range(math.ceil(rate * seconds))]
    gaps = np.random.default_rng(seed).exponential(1 / rate, math.ceil(2 * rate * seconds) + 50)
    times = np.cumsum(gaps)
    return [float(due) for due in times[times < seconds]]


@dataclass(frozen=True)
class Work:
    """The model's work in some period: images computed, and the share of the time in which the model had a batch."""

    images: float
    busy: float


def work_in(samples: Sequence[Sample], begin: float, end: float) -> Work:
    """The model's work in [begin, end); images whose batch crosses an edge count by their share."""
    images = seconds = 0.0
    for sample in samples:
        if (reply := sample.reply) is not None:
            inside = max(0.0, min(end, sample.done_s) - max(begin, sample.done_s - reply.total_s))
            images += reply.images * inside / reply.total_s
            seconds += reply.images / reply.batch_size * inside  # adds up to the batch's time over all its requests
    return Work(images, seconds / (end - begin))


def finished(samples: Sequence[Sample], begin: float, end: float) -> list[Sample]:
    """The samples that ended in (begin, end], in the order of their ends."""
    return sorted((s for s in samples if begin < s.done_s <= end), key=lambda s: s.done_s)


def stable(samples: Sequence[Sample], end: float, window_s: float) -> bool:
    """Whether throughput and median latency of the last three windows before `end` lie within 10 %."""
    edges = [end - (WINDOWS - k) * window_s for k in range(WINDOWS + 1)]
    rates = [work_in(samples, *window).images for window in itertools.pairwise(edges)]
    medians = [
        percentile([sample.latency_s for sample in finished(samples, *window)], 0.5)
        for window in itertools.pairwise(edges)
    ]
    return all(min(values) * (1 + TOLERANCE) >= max(values) for values in (rates, medians))


def engine_batches(replies: Sequence[Reply]) -> list[int]:
    """The sizes of the engine's batches in the order of their ends, reconstructed from the answers."""
    sizes: list[int] = []
    waiting: dict[int, int] = {}
    for reply in replies:
        waiting[reply.batch_size] = waiting.get(reply.batch_size, 0) + reply.images
        if waiting[reply.batch_size] >= reply.batch_size:
            waiting[reply.batch_size] -= reply.batch_size
            sizes.append(reply.batch_size)
    return sizes


# ---- Loops ----


class Recorder:
    """The samples of all threads, on one clock."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._lock = threading.Lock()
        self._began = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._began

    def send(self, send: Send, number: int, due_s: float | None = None) -> None:
        """Send a request and keep its sample. Without `due_s` the request is due when it is sent."""
        sent = self.now()
        reply = send(number)
        sample = Sample(number, sent if due_s is None else due_s, sent, self.now(), reply)
        with self._lock:
            self.samples.append(sample)

    def taken(self) -> list[Sample]:
        with self._lock:
            return list(self.samples)


def closed_loop(
    connect: Connect, clients: int, window_s: float, most_windows: int, numbers: Iterator[int]
) -> tuple[list[Sample], float, bool]:
    """Clients that each send a request as soon as their last request is answered, until three windows agree.

    Returns (samples, end, whether the windows agree). The figures are of the last three windows before `end`.
    """
    recorder, stop, lock = Recorder(), threading.Event(), threading.Lock()

    def one_client() -> None:
        try:
            with connect() as send:
                while not stop.is_set():
                    with lock:
                        number = next(numbers)
                    recorder.send(send, number)
        finally:
            stop.set()  # when one client fails, all end

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(one_client) for _ in range(clients)]
        try:
            end, agreed = _wait_for_windows(recorder, stop, window_s, most_windows)
        finally:
            stop.set()
        for client in running:
            client.result()
    return recorder.samples, end, agreed


def _wait_for_windows(
    recorder: Recorder, stop: threading.Event, window_s: float, most_windows: int
) -> tuple[float, bool]:
    """(end of the last window, whether three windows agree). Windows end with an answer and begin after the first."""
    end = 0.0
    for _ in range(most_windows):
        if stop.wait(window_s):
            break
        samples = recorder.taken()
        if not samples:
            continue
        first, end = min(s.done_s for s in samples), max(s.done_s for s in samples)
        if end - WINDOWS * window_s >= first and stable(samples, end, window_s):
            return end, True
    return end, False


def open_loop(connect: Connect, due: Sequence[float], senders: int, numbers: Iterator[int]) -> list[Sample]:
    """Send requests when they are due, whether or not earlier requests are answered.

    While all `senders` wait for answers, a request goes out late. Its latency still counts from the time it was due.
    """
    recorder, lock = Recorder(), threading.Lock()
    queue = iter(due)

    def one_sender() -> None:
        with connect() as send:
            while True:
                with lock:
                    due_s = next(queue, None)
                    number = next(numbers)
                if due_s is None:
                    return
                time.sleep(max(0.0, due_s - recorder.now()))
                recorder.send(send, number, due_s)

    with ThreadPoolExecutor(senders) as pool:
        for sender in [pool.submit(one_sender) for _ in range(senders)]:
            sender.result()
    return recorder.samples
