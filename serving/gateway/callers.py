"""Who calls: a key's name or an address, what it is allowed, and what is left of that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.gateway.doors import Doors
from serving.gateway.keys import Keys
from serving.gateway.limits import Limit
from serving.gateway.problems import Problem

_MOST_LIMITS = 10_000


@dataclass(frozen=True, eq=False)
class Caller:
    """Who calls.

    Attributes:
        name: of the key, or None without keys.
        queue: between whom the queue is fair: the key, or the connection.
        limit: images a minute, or None.
    """

    name: str | None
    queue: str
    limit: Limit | None

    def take(self, images: int) -> None:
        """Count `images` against the limit. Raises Problem 429."""
        if self.limit is not None and (seconds := self.limit.take(images)) > 0:
            raise self._too_many(self.limit, seconds)

    def check(self) -> None:
        """Raises Problem 429 where not one image is left."""
        if self.limit is not None and (seconds := self.limit.wait_s(1)) > 0:
            raise self._too_many(self.limit, seconds)

    def _too_many(self, limit: Limit, seconds: float) -> Problem:
        wait = str(math.ceil(seconds))
        return Problem(
            "too-many-requests",
            f"[limit] expected at most {limit.per_minute} images a minute but got more; try again in {wait} s",
            {"Retry-After": wait, **limit.headers()},
        )


class Callers:
    """Knows who calls. Raises KeysError or OSError for a file of keys that cannot be read."""

    def __init__(self, doors: Doors) -> None:
        self._per_minute = doors.per_minute
        self._keys = None if doors.keys is None else Keys(Path(doors.keys))
        self._limits: dict[str, Limit] = {}

    def admit(self, key: str | None, host: str, port: int | str) -> Caller:
        """The caller with this key (None without one), at this address. Raises Problem 401."""
        if self._keys is None:
            return Caller(None, f"{host}:{port}", self._limit(host, self._per_minute))
        found = None if key is None else self._keys.find(key)
        if found is None:
            got = "none" if key is None else "one that is not known"
            raise Problem(
                "unauthenticated",
                f"[keys] expected a key as `Authorization: Bearer KEY` but got {got}; ask the server's owner for one",
                {"WWW-Authenticate": 'Bearer realm="spade"'},
            )
        return Caller(found.name, found.name, self._limit(found.name, found.per_minute or self._per_minute))

    def _limit(self, who: str, per_minute: int | None) -> Limit | None:
        if per_minute is None:
            return None
        limit = self._limits.get(who)
        if limit is None or limit.per_minute != per_minute:
            if len(self._limits) >= _MOST_LIMITS:
                self._limits = {name: one for name, one in self._limits.items() if not one.full()}
            limit = self._limits[who] = Limit(per_minute)
        return limit


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key of a request: `Authorization: Bearer KEY`, or `X-API-Key: KEY`."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    return headers.get("x-api-key")
