"""Keeps freed memory for the next tensor, as PyTorch does on GPUs."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt, from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees. Returns whether it can: only on Linux with glibc.

    By default glibc takes every tensor above 32 MB from the kernel and returns it when freed. The kernel then clears
    and maps each page again for the next tensor, which costs a training step as much as computing on the tensor. The
    next step needs the memory that this step frees.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Return the memory that `keep_freed_memory` kept to the kernel, so that the process holds what it uses."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
