"""Freed memory kept for the next tensor, as PyTorch does on GPUs."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them, malloc.h of glibc


def keep_freed_memory() -> bool:
    """Let this process keep what it frees. Returns whether it can: on Linux with glibc only.

    By default glibc takes every tensor above 32 MB from the kernel and gives it back when freed: each page is then
    cleared and mapped anew at the next, which costs a training step as much as computing on it. What a step frees,
    the next one needs.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Give the kernel what `keep_freed_memory` kept until now, so that the process holds what it uses."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
