"""The rows of the server benchmark, how they follow from samples, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.common.load import Reply, Sample, percentile


@dataclass(frozen=True)
class ClosedRow:
    """Clients that send one request after another. Times in seconds, percentiles over requests, rates in images/s.

    Attributes:
        overhead_s: median of latency - queue - engine, where the engine is what the engine times itself.
        engine_untimed_s: seconds of a batch, by the engine alone, outside the engine's own timings; part of overhead_s.
        engine_images_s: rate of the engine alone, on the same maps in batches of the same sizes.
        ratio: images_s / engine_images_s, which equals busy / slowdown.
        busy: share of the time in which the model has a batch, from taking the batch to answering it.
        slowdown: the model's time with a batch over the engine's time for the batch alone.
        cached_maps: maps whose plan and codebooks the server's engine had in its cache.
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
        refused: share of the requests that the server refused. The percentiles leave these requests out.
        late_s: the largest delay between the time a request was due and the time it was sent.
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


@dataclass(frozen=True)
class Measured:
    """The figures of a closed loop that do not follow from its requests.

    Attributes:
        images_s: rate of the server.
        busy: share of the time in which the model has a batch.
        alone: rate of the engine alone.
        untimed_s: see `ClosedRow.engine_untimed_s`.
        agreed: whether the windows of every round agree.
        cached: see `ClosedRow.cached_maps`.
    """

    images_s: float
    busy: float
    alone: float
    untimed_s: float
    agreed: bool
    cached: int


def closed_row(protocol: str, clients: int, batch: int, timed: Sequence[Sample], measured: Measured) -> ClosedRow:
    """The row of a closed loop; `timed` are the requests of its last windows."""
    answered = [(s, s.reply) for s in timed if s.reply is not None]
    latencies = [s.latency_s for s, _ in answered]
    return ClosedRow(
        protocol, clients, batch, len(answered), measured.images_s,
        percentile(latencies, 0.5), percentile(latencies, 0.9), percentile(latencies, 0.99),
        percentile([r.queue_s for _, r in answered], 0.5),
        percentile([s.latency_s - r.queue_s - r.engine_s for s, r in answered], 0.5), measured.untimed_s,
        mean_batch([r for _, r in answered]), measured.alone, measured.images_s / measured.alone, measured.busy,
        measured.busy * measured.alone / measured.images_s, measured.agreed, measured.cached,
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
