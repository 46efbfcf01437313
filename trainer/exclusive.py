"""One process group in a run's folder at a time, and signals that end a run after its step."""

from __future__ import annotations

import fcntl
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from trainer.processes import Processes

_log = logging.getLogger(__name__)


class TrainError(RuntimeError):
    """A run that cannot start or go on; the message holds the reason and the fix."""


@contextmanager
def exclusive(folder: Path, processes: Processes) -> Iterator[None]:
    """Hold the lock of a run's folder in the first process. The kernel frees the lock when the process ends."""
    if processes.rank != 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainError(
                f"[train] expected '{folder}' to be free but another process trains in it; give another run.out"
            ) from None
        yield


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM came; a second signal ends the process as usual."""
    asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        nonlocal asked
        asked = True
        _log.warning("stopping after this step; again to stop at once")
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
