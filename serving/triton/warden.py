"""End a process group with its leader, and soon after the leader's parent: `python warden.py PARENT_PID LEADER_PID`.

A model process that outlives its server is an orphan of a gigabyte that nobody ends. The warden is a process of its
own, so that it acts too where the parent is killed with SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

GRACE_S = 10.0
"""How long the leader may go on after its parent, to answer what it accepted."""


def main(parent: int, leader: int) -> None:
    leads = _opened(leader)
    poll = select.poll()
    if leads is not None:
        poll.register(leads, select.POLLIN)
        lives = _opened(parent)
        if lives is not None:
            poll.register(lives, select.POLLIN)
            if lives in (fd for fd, _ in poll.poll()):
                poll.unregister(lives)
        poll.poll(GRACE_S * 1000)  # the kernel has sent SIGTERM to the leader
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _opened(process: int) -> int | None:
    """A descriptor that is readable once the process has ended; None where it has."""
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
