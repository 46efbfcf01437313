"""A process that is ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_POLL_S = 0.2


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, None if its time was over; and the end of what it printed."""

    status: int | None
    printed: str


def run_group(
    command: Sequence[str],
    seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a command in a session of its own for at most some seconds; then end it and all that it started.

    compute-sanitizer and compilers start processes that outlive a parent that is killed alone, and keep the GPU busy.

    Args:
        environment: added to this process's own.
        meanwhile: called now and then while the command runs, and once after it.
    """
    with tempfile.TemporaryFile() as printed:  # a pipe would keep a parent waiting for a grandchild that holds it
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        ends = time.monotonic() + seconds
        try:
            while process.poll() is None and time.monotonic() < ends:
                time.sleep(_POLL_S)
                meanwhile()
            status = process.poll()
        finally:
            _end_group(process)
        meanwhile()
        printed.seek(0)
        return Ended(status, printed.read().decode(errors="replace")[-4000:])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # the whole group has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
