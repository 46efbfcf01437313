"""Processes as the kernel shows them: who is in a group, whether a process is stopped, what it uses. See proc(5)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_ENDED = "ZX"
_STOPPED = "Tt"
_REAP_S = 5.0
_REAP_POLL_S = 0.005


@dataclass(frozen=True)
class Process:
    """A process at one moment.

    Attributes:
        group: its process group.
        state: the letter of proc(5): R runs, S sleeps, T is stopped, Z has ended, ..
        cpu_s: processor time so far, seconds.
        rss_bytes: memory in use, shared memory included.
    """

    pid: int
    group: int
    state: str
    cpu_s: float
    rss_bytes: int

    @property
    def ended(self) -> bool:
        return self.state in _ENDED

    @property
    def stopped(self) -> bool:
        return self.state in _STOPPED


def read_process(pid: int) -> Process | None:
    """The process `pid`; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # Fields count from the state, the third, since a program's name may hold spaces and brackets.
    fields = text.rpartition(")")[2].split()
    state, group, user, system, rss = fields[0], fields[2], fields[11], fields[12], fields[21]
    return Process(pid, int(group), state, (int(user) + int(system)) / _TICKS, int(rss) * _PAGE)


def processes_of_group(group: int) -> list[Process]:
    """Every process of a process group."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names, not paths
    found = (read_process(pid) for pid in pids if _group_of(pid) == group)
    return [process for process in found if process is not None and process.group == group]


def _group_of(pid: int) -> int | None:
    """A system call, which costs a hundredth of reading the process."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def arguments_of(pid: int) -> list[str]:
    """The command line of a process; empty where the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def demand_s(pid: int) -> float:
    """Seconds that a process has run, or its threads have waited for a processor. A blocked process adds none.

    Where the kernel does not tell the waits (no /proc/PID/schedstat), only what it has run.
    """
    process = read_process(pid)
    waited_ns = 0
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a hundred names, read again and again
            with contextlib.suppress(OSError, ValueError):  # the thread has ended meanwhile
                waited_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_bytes().split()[1])
    return (0.0 if process is None else process.cpu_s) + waited_ns / 1e9


def descriptors_of(pid: int) -> int:
    """How many files, sockets and pipes a process holds open; 0 where it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count, not paths
    except OSError:
        return 0


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent dies, so that `reap` can end them for good."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def reap(group: int) -> None:
    """Wait until the killed orphans of a process group are gone, and remove them from the table of processes."""
    end = time.monotonic() + _REAP_S
    with contextlib.suppress(ChildProcessError):  # none is left, or none is ours
        while time.monotonic() < end:
            if os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is None:
                time.sleep(_REAP_POLL_S)
