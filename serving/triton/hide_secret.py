"""Hide a secret in the arguments of a child process, which `ps` shows to every user.

Triton reads the secret of its control interface from an option only.
"""

from __future__ import annotations

from pathlib import Path

_ARG_START = 45  # index of the field arg_start of /proc/PID/stat after the program's name: see proc(5)


def hide(pid: int, secret: str) -> None:
    """Overwrite `secret` with x in the arguments of the child process `pid`, once the child has read its arguments.

    Raises OSError where the system forbids writing to the child's memory (a ptrace scope of 2 or 3).
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
