"""A memory cgroup for one process, of version 1 or 2, where this user may make one."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[tuple[Callable[[int], None], Callable[[], int]]]:
    """Yields what moves a process into the group, and what counts the kernel's kills there. Skips where refused.

    The limit counts what the process asks for from then on: what it has stays with its old group.
    """
    first = _V1.is_dir()
    folder = (_V1 if first else _V2) / f"spade-test-{secrets.token_hex(4)}"
    limit_file = "memory.limit_in_bytes" if first else "memory.max"
    kills_file = "memory.oom_control" if first else "memory.events"
    try:
        folder.mkdir()
        (folder / limit_file).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"memory cgroups are refused: {error}; the bound by RSS is tested in test_full.py")

    def add(process: int) -> None:
        (folder / "cgroup.procs").write_text(str(process))

    def kills() -> int:
        found = re.search(r"^oom_kill (\d+)$", (folder / kills_file).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    try:
        yield add, kills
    finally:
        end = time.monotonic() + 20
        while True:  # a killed process leaves its group a moment later
            try:
                folder.rmdir()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
