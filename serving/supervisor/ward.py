"""What a keeper keeps alive, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Reason = Literal["dead", "hung", "wrong", "failing", "memory", "descriptors"]


@dataclass(frozen=True)
class Fault:
    """Why a process must be replaced.

    Attributes:
        reason: `dead`, a process ended; `hung`, a process is stopped or does not answer; `wrong`, the answer to the
            canary changed; `failing`, the canary is answered by errors; `memory`, `descriptors`, more than allowed.
        text: what was seen, in words.
    """

    reason: Reason
    text: str


class Ward(Protocol):
    """A process, or a group of processes, that a `Keeper` keeps alive.

    Attributes:
        name: in log lines and metrics.
    """

    name: str

    def start(self, report: Callable[[str], None]) -> None:
        """Start, and return when ready. `report` may raise, to give up the start."""

    def look(self) -> Fault | None:
        """Wait a moment, and say what is wrong."""

    def answers(self) -> bool:
        """Whether a request would be answered now, as far as the last look knows."""

    def kill(self) -> None:
        """End every process at once. Nothing may be left; a second call does nothing."""

    def stop(self) -> None:
        """Answer what was accepted, then end every process."""
