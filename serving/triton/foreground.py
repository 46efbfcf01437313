"""`spade serve`: a server in the foreground, until a signal stops it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Protocol

from serving.progress import Progress
from serving.triton.install import InstallError
from serving.triton.ports import PortError
from serving.triton.repository import PublishError
from serving.triton.server import Report, ServeError, ServeOptions, serve
from serving.triton.server_log import is_warning

_POLL_S = 0.1


class Running(Protocol):
    """What runs until a signal: `serving.triton.server.Server`, or more processes beside it."""

    options: ServeOptions

    @property
    def log(self) -> Path:
        """Triton's log."""

    def announcement(self) -> str:
        """Where clients reach the server."""

    def check(self) -> None:
        """Raises ServeError where a process has ended by itself."""

    def kill(self) -> None:
        """End every process at once."""

    def unclean_ending(self) -> str | None:
        """How the processes ended where requests may be unanswered; None after a clean end."""


Start = Callable[[ServeOptions, Report], AbstractContextManager[Running]]


def run(options: ServeOptions, start: Start = serve) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status of the command. Main thread only.

    0: a signal stopped the server, and everything accepted was answered. 1: the server did not start, ended by itself,
    or requests were cut off after `drain_s`; the reason goes to standard error. A second signal kills at once.
    """
    with Progress() as progress:
        stop = _StopOnSignal()
        try:
            with stop.installed(), start(options, progress.report) as server:
                stop.server = server
                progress.done(server.announcement())
                _watch(server, progress.line)
        except _Stopped:
            return _stopped(stop.server, progress)
        except (ServeError, PortError, InstallError, PublishError, ValueError, OSError) as error:
            progress.line(f"error: {error}")
            return 1
    return 1


def _watch(server: Running, show: Callable[[str], None]) -> None:
    """Show what Triton logs. Raises ServeError when a process ends by itself."""
    with server.log.open(encoding="utf-8", errors="replace") as log:
        log.seek(0, os.SEEK_END)
        while True:
            server.check()
            for line in log:
                if server.options.verbose or is_warning(line):
                    show(line.rstrip())
            time.sleep(_POLL_S)


def _stopped(server: Running | None, progress: Progress) -> int:
    if server is None:
        progress.line("stopped before it was ready")
        return 0
    unclean = server.unclean_ending()
    if unclean is None:
        progress.line("stopped: every accepted request was answered")
        return 0
    progress.line(f"[serve] expected a clean stop but {unclean}; requests may be unanswered")
    return 1


class _Stopped(BaseException):
    """A signal asked the command to stop."""


class _StopOnSignal:
    """SIGTERM and SIGINT end the main thread's work as an exception does. A second signal kills the server."""

    def __init__(self) -> None:
        self.server: Running | None = None
        self._received = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """The signals are handled in the block."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's signature of a handler
        self._received += 1
        if self._received == 1:
            raise _Stopped
        if self.server is not None:
            self.server.kill()
