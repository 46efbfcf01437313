"""The processor time of this process and of all processes below it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PARENT, _USER, _SYSTEM = 1, 11, 12  # fields of /proc/PID/stat after the program's name: see proc(5)
_TICKS_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Seconds of user and system time so far, in this process and in its children at any depth that still run."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pid = int(entry.name)
            parents[pid] = int(fields[_PARENT])
            ticks[pid] = int(fields[_USER]) + int(fields[_SYSTEM])
    own = os.getpid()

    def is_ours(pid: int) -> bool:
        while pid > 1:
            if pid == own:
                return True
            pid = parents.get(pid, 0)
        return False

    return sum(count for pid, count in ticks.items() if is_ours(pid)) / _TICKS_S
