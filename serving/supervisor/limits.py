"""What counts as late, hung or leaking."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SHARE_OF_MEMORY = 0.9


def memory_limit() -> int:
    """Nine tenths of the memory of this machine, or of this container, bytes."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, _CGROUP_LIMITS):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            whole = min(whole, int(text))
    return int(whole * _SHARE_OF_MEMORY)


@dataclass(frozen=True)
class Limits:
    """When a server is replaced. A canary that costs t seconds has ten times t more until late, thirty until hung.

    Attributes:
        canary_s: between two canaries of idle models; busy models get one at most 100 times as seldom as it costs.
        late_s: wait for the canary's answer until the server is not ready.
        hung_s: wait for the canary's answer until the server is replaced; ten times as long where it computes.
        stopped_s: how long a process may be stopped (SIGSTOP).
        failures: canaries in a row that are answered by errors.
        memory_bytes: most memory of Triton and its models together, shared memory counted in each process.
        descriptors_share: most open descriptors of a process, as a share of what the system allows.
        settled_s: a server that fails sooner after its start counts as not started.
        attempts: starts in a row that may fail, with longer and longer pauses between them.
    """

    canary_s: float = 0.5
    late_s: float = 0.5
    hung_s: float = 3.0
    stopped_s: float = 0.3
    failures: int = 3
    memory_bytes: int = field(default_factory=memory_limit)
    descriptors_share: float = 0.8
    settled_s: float = 10.0
    attempts: int = 5


DEFAULT_LIMITS = Limits()
