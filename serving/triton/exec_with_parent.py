"""Run a program that ends with its parent: `python exec_with_parent.py PARENT_PID PROGRAM ARGUMENTS...`.

The kernel sends the program SIGTERM when the parent ends, even when the parent was killed with SIGKILL. A warden
(warden.py) then ends the program's whole process group, where the program takes long, and ends the rest of the group
when the program itself dies. This file is a program because a `preexec_fn` may deadlock in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_WARDEN = Path(__file__).with_name("warden.py")


def main(arguments: list[str]) -> None:
    parent, program = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit(f"[serve] the parent process {parent} is gone")
    if os.getpgrp() == os.getpid():  # the warden ends groups only, and only the program's own
        _start_warden(parent, os.getpid())
    os.execv(program[0], program)


def _start_warden(parent: int, program: int) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:  # no child of the program, which might wait for all of its children
            # The program's arguments may hold a secret, which the warden must not show in `ps`.
            os.closerange(0, os.sysconf("SC_OPEN_MAX"))
            os.execv(sys.executable, [sys.executable, "-I", "-S", str(_WARDEN), str(parent), str(program)])
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
