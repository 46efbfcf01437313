"""Which waiting requests are dropped: those whose time is up and those whose client has gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class WaitedTooLongError(RuntimeError):
    """The time of a request is up before a batch takes it."""


class CancelledError(Exception):
    """The client of a request no longer waits for the answer."""


def wait_limit_s(server_s: float, request_s: float) -> float:
    """The longest a request may wait: the server's limit, or the request's own where shorter. `request_s` 0: none."""
    return min(server_s, request_s) if request_s > 0 else server_s


@dataclass(frozen=True, eq=False)
class Deadline:
    """When a waiting request is dropped.

    Attributes:
        limit_s: the longest the request may wait for its batch.
        cancelled: whether the client has gone.
        allowed_s: what the request allowed at first, for the error, where part of it is spent; None for `limit_s`.
    """

    limit_s: float
    cancelled: Callable[[], bool]
    allowed_s: float | None = None

    def reason_to_drop(self, waited_s: float) -> Exception | None:
        """The error that answers a request after `waited_s` seconds; None where the request may run."""
        if waited_s > self.limit_s:
            allowed_s = self.limit_s if self.allowed_s is None else self.allowed_s
            waited_s += allowed_s - self.limit_s
            return WaitedTooLongError(
                f"[spade] waited {waited_s:.3g} s for a batch, longer than {allowed_s:.3g} s; try again later"
            )
        return CancelledError() if self.cancelled() else None
