"""Run a program that ends with its parent: `python exec_with_parent.py PARENT_PID PROGRAM ARGUMENTS...`.

The kernel sends the program SIGTERM when the parent ends, even when the parent was killed with SIGKILL. This file is a
program because a `preexec_fn` may deadlock in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, program = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit(f"[serve] the parent process {parent} is gone")
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
