"""Progress of a command on standard error: one changing line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

_PLAIN_INTERVAL_S = 5.0


class Progress:
    """A context manager. `report` shows a line that changes, `line` a line that stays."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._reported = float("-inf")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_status()

    def report(self, text: str) -> None:
        """Replace the changing line. Without a terminal, print the text every few seconds."""
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._reported > _PLAIN_INTERVAL_S:
            self._reported = time.monotonic()
            self.line(text)

    def done(self, text: str) -> None:
        """End the changing line with a line that stays."""
        self._end_status()
        self.line(text)

    def line(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
