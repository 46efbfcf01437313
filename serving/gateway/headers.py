"""Headers of answers that hold images."""

from __future__ import annotations

from collections.abc import Sequence

from serving.gateway.drawing import Drawn
from serving.protocol import RequestTimings

TIMINGS = "X-Spade-Timings"
EXPOSED = (
    TIMINGS, "X-Spade-Batch-Size", "X-Spade-Seed", "X-Spade-Engine", "X-Spade-Weights", "X-Request-Id", "ETag",
    "Retry-After", "RateLimit", "RateLimit-Policy",
)  # fmt: skip
"""Headers that pages of other origins may read, where CORS lets them in."""


def drawn_headers(drawn: Drawn, seeds: Sequence[int] | None, tag: str | None) -> dict[str, str]:
    """What an answer says about its images."""
    headers = {
        TIMINGS: timings_header(drawn.timings),
        "Server-Timing": timings_header(drawn.timings),
        "X-Spade-Batch-Size": f"{drawn.timings.batch_size:.0f}",
        "Cache-Control": "private, no-cache",  # may be kept, and is asked for again with its tag
        "Vary": "Accept",
    }
    if seeds is not None:
        headers["X-Spade-Seed"] = ",".join(map(str, seeds))
    if drawn.identity is not None:
        identity = drawn.identity
        headers["X-Spade-Engine"] = " ".join(filter(None, (identity.engine, identity.precision, identity.isa)))
        headers["X-Spade-Weights"] = identity.weights
    if tag is not None:
        headers["ETag"] = tag
    return headers


def timings_header(timings: RequestTimings) -> str:
    """Milliseconds in the grammar of Server-Timing; a part that was not measured is left out."""
    parts = {
        "queue": timings.queue_s,
        "plan": timings.plan_s,
        "codebook": timings.codebook_s,
        "convs": timings.convs_s,
        "total": timings.total_s,
    }
    return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in parts.items() if seconds >= 0)
