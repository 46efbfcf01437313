"""What the supervisor knows, for the gateway to read: whether the model answers, and how often what was replaced."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass, field, replace

_PAGE = 8192  # bytes; a status is a few hundred
_REASON_LENGTH = 1000
_TRIES = 100


@dataclass(frozen=True)
class Status:
    """A moment of the supervisor.

    Attributes:
        ready: Triton answers, as far as the supervisor knows.
        reason: why not, in words; empty when ready.
        restarts: (process, reason) -> restarts since the start of `spade serve`.
    """

    ready: bool = False
    reason: str = "starting"
    restarts: dict[tuple[str, str], int] = field(default_factory=dict)

    def to_json(self) -> str:
        restarts = [[*key, count] for key, count in sorted(self.restarts.items())]
        return json.dumps({"ready": self.ready, "reason": self.reason, "restarts": restarts})

    @classmethod
    def from_json(cls, text: str) -> Status:
        values = json.loads(text)
        restarts = {(process, reason): count for process, reason, count in values["restarts"]}
        return cls(values["ready"], values["reason"], restarts)


class StatusPage:
    """The status on a page of memory that the gateway inherits as a descriptor, which no full disk stops.

    May be used from any thread.

    Attributes:
        descriptor: for `read_status`, in this process or in a child that inherits the descriptor.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("spade-status")
        self._lock = threading.Lock()
        self._status = Status()
        self._write(self._status)

    def close(self) -> None:
        os.close(self.descriptor)

    @property
    def status(self) -> Status:
        """The status now."""
        return self._status

    def set_ready(self, ready: bool, reason: str = "") -> None:
        """Say whether Triton answers, and why not."""
        with self._lock:
            if (ready, reason) != (self._status.ready, self._status.reason):
                self._write(replace(self._status, ready=ready, reason=reason))

    def count(self, process: str, reason: str) -> None:
        """Count a restart."""
        with self._lock:
            restarts = self._status.restarts
            key = process, reason
            self._write(replace(self._status, restarts={**restarts, key: restarts.get(key, 0) + 1}))

    def _write(self, status: Status) -> None:
        text = replace(status, reason=status.reason[:_REASON_LENGTH]).to_json().encode()
        os.pwrite(self.descriptor, text.ljust(_PAGE), 0)
        self._status = status


def read_status(descriptor: int) -> Status:
    """The status of a `StatusPage`."""
    for _ in range(_TRIES):
        with contextlib.suppress(ValueError):  # the page changed while it was read
            return Status.from_json(os.pread(descriptor, _PAGE, 0).decode())
    raise RuntimeError("[status] expected the page of the supervisor's status but got something else")
