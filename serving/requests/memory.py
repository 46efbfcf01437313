"""How much freed memory a process keeps."""

from __future__ import annotations

import ctypes

# Options of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 4 << 20  # bytes; the maps and images of a usual request are smaller
_KEPT = 16 << 20  # bytes, at the end of each arena
_ARENAS = 2


def return_large_memory() -> None:
    """Have malloc give large pieces back to the system when they are freed, and share few arenas between threads.

    A decoder meets files of every size. Without this call it would keep what its largest ones took, once a thread.
    """
    libc = ctypes.CDLL(None)
    for option, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, _ARENAS)):
        libc.mallopt(option, value)  # 1 where glibc took the value; another C library may have no such options
