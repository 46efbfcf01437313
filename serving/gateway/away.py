"""How long a request is out of the gateway's hands: it waits for its turn, or Triton has it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar


class Away:
    """The time of one request that is not the gateway's own. Parts that are away side by side count once.

    Attributes:
        seconds: so far, without what is away now.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._parts = 0
        self._since = 0.0

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """A part of the request is away within the block."""
        if self._parts == 0:
            self._since = time.perf_counter()
        self._parts += 1
        try:
            yield
        finally:
            self._parts -= 1
            if self._parts == 0:
                self.seconds += time.perf_counter() - self._since


_REQUEST: ContextVar[Away | None] = ContextVar("request", default=None)


def begin() -> Away:
    """Begin a request. What this task and the tasks it starts send away counts for it, until another begins."""
    away = Away()
    _REQUEST.set(away)
    return away


@contextlib.contextmanager
def sent_away() -> Iterator[None]:
    """Within the block a part of the request that began last is away."""
    request = _REQUEST.get()
    with contextlib.nullcontext() if request is None else request.away():
        yield
