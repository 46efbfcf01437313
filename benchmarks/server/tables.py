"""The rows of the server benchmark: what they mean, how they follow from samples, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.common.load import Reply, Sample, percentile


@dataclass(frozen=True)
class ClosedRow:
    """Clients that send one request after another. Seconds; percentiles over requests; rates in images/s.

    Attributes:
        overhead_s: median of latency - queue - engine, the engine as it times itself.
        engine_untimed_s: what a batch of the engine alone takes beyond the time it gives itself; part of overhead_s.
        engine_images_s: the engine alone, on the same maps in batches of the same sizes.
        ratio: images_s / engine_images_s, which is busy / slowdown.
        busy: share of the time in which the model has a batch, from taking to answering it.
        slowdown: the model's time with a batch over that of the engine alone.
        cached_maps: maps whose plan and codebooks the server had at hand.
    """

    protocol: str
    clients: int
    batch: int
    requests: int
    images_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    queue_s: float
    overhead_s: float
    engine_untimed_s: float
    engine_batch: float
    engine_images_s: float
    ratio: float
    busy: float
    slowdown: float
    stable: bool
    cached_maps: int


@dataclass(frozen=True)
class OpenRow:
    """Arrivals at `share` of the best closed loop's rate. Latency counts from when a request was due.

    Attributes:
        refused: share of the requests that the server refused; the percentiles are of the others.
        late_s: the most that a request was sent late.
    """

    protocol: str
    batch: int
    share: float
    offered_images_s: float
    requests: int
    p50_s: float
    p99_s: float
    refused: float
    late_s: float
    engine_batch: float


def closed_row(
    protocol: str, clients: int, batch: int, timed: Sequence[Sample], images_s: float, busy: float, alone: float,
    untimed_s: float, agreed: bool, cached: int,
) -> ClosedRow:  # fmt: skip
    """The figures of the requests `timed`; `images_s` and `alone` are the rates of the server and of its engine."""
    answered = [(s, s.reply) for s in timed if s.reply is not None]
    latencies = [s.latency_s for s, _ in answered]
    return ClosedRow(
        protocol, clients, batch, len(answered), images_s,
        percentile(latencies, 0.5), percentile(latencies, 0.9), percentile(latencies, 0.99),
        percentile([r.queue_s for _, r in answered], 0.5),
        percentile([s.latency_s - r.queue_s - r.engine_s for s, r in answered], 0.5), untimed_s,
        mean_batch([r for _, r in answered]), alone, images_s / alone, busy, busy * alone / images_s,
        agreed, cached,
    )  # fmt: skip


def mean_batch(replies: Sequence[Reply]) -> float:
    """Images per engine batch."""
    images = sum(reply.images for reply in replies)
    return images / sum(reply.images / reply.batch_size for reply in replies) if images else float("nan")


def closed_table(rows: Sequence[ClosedRow], title: str) -> Table:
    table = Table(
        "", "clients", "batch", "images/s", "p50 ms", "p90", "p99", "queue", "overhead", "untimed", "engine batch",
        "alone images/s", "ratio", "busy", "slowdown", "requests", title=f"closed loop, {title}",
    )  # fmt: skip
    for r in rows:
        table.add_row(
            r.protocol, str(r.clients), str(r.batch), f"{r.images_s:.2f}" + ("" if r.stable else " (unstable)"),
            _ms(r.p50_s), _ms(r.p90_s), _ms(r.p99_s), _ms(r.queue_s), f"{r.overhead_s * 1e3:.1f}",
            f"{r.engine_untimed_s * 1e3:.1f}", f"{r.engine_batch:.2f}", f"{r.engine_images_s:.2f}", f"{r.ratio:.1%}",
            f"{r.busy:.1%}", f"{r.slowdown:.3f}", str(r.requests),
        )  # fmt: skip
    return table


def open_table(rows: Sequence[OpenRow], title: str) -> Table:
    table = Table(
        "", "batch", "share", "offered images/s", "p50 ms", "p99", "refused", "late ms", "engine batch", "requests",
        title=f"open loop, {title}",
    )  # fmt: skip
    for r in rows:
        table.add_row(
            r.protocol, str(r.batch), f"{r.share:g}", f"{r.offered_images_s:.2f}", _ms(r.p50_s), _ms(r.p99_s),
            f"{r.refused:.1%}", f"{r.late_s * 1e3:.1f}", f"{r.engine_batch:.2f}", str(r.requests),
        )  # fmt: skip
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"
