"""Takes a secret out of what `ps` shows of a child process, for programs that read it from nowhere but an option."""

from __future__ import annotations

from pathlib import Path

_ARG_START = 45  # of /proc/PID/stat, counted behind the program's name: see proc(5)


def hide(pid: int, secret: str) -> None:
    """Overwrite `secret` in the arguments of a child that has read them; every user can see those, only we its memory.

    Raises OSError where the system forbids it (a ptrace scope of 2 or 3).
    """
    process = Path(f"/proc/{pid}")
    arguments, needle = (process / "cmdline").read_bytes(), secret.encode()
    start = int((process / "stat").read_text().rpartition(")")[2].split()[_ARG_START])
    with (process / "mem").open("r+b", buffering=0) as memory:
        found = arguments.find(needle)
        while found >= 0:
            memory.seek(start + found)
            memory.write(b"x" * len(needle))
            found = arguments.find(needle, found + len(needle))
