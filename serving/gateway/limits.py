"""How many images a caller may ask for: a token bucket, and the headers that tell what is left of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_WINDOW_S = 60


class Limit:
    """At most `per_minute` images a minute, all at once or one after another.

    Args:
        clock: seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._left = float(per_minute)
        self._at = clock()

    def wait_s(self, images: int) -> float:
        """Seconds until `images` may be taken; 0 where they may be now.

        More than a minute's images never fit: they are let through from a full bucket, which then owes the rest.
        """
        self._refill()
        return max(0.0, min(images, self.per_minute) - self._left) * _WINDOW_S / self.per_minute

    def take(self, images: int) -> float:
        """Take what `images` cost. Returns 0, or the seconds until there is enough, and nothing is taken then."""
        seconds = self.wait_s(images)
        if seconds == 0:
            self._left -= images
        return seconds

    def full(self) -> bool:
        """Whether the bucket holds nothing that is worth remembering."""
        self._refill()
        return self._left >= self.per_minute

    def headers(self) -> dict[str, str]:
        """The header fields of the IETF's draft: the policy, and what is left of it."""
        self._refill()
        left = max(0, math.floor(self._left))
        reset = math.ceil((self.per_minute - self._left) * _WINDOW_S / self.per_minute)
        return {
            "RateLimit-Policy": f'"images";q={self.per_minute};w={_WINDOW_S}',
            "RateLimit": f'"images";r={left};t={reset}',
        }

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(float(self.per_minute), self._left + (now - self._at) * self.per_minute / _WINDOW_S)
        self._at = now
