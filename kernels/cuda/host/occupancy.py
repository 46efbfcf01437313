"""What a kernel takes of a multiprocessor, as ptxas reports it, and how many of its blocks fit one.

The limits are of the CUDA programming guide, table "Technical specifications per compute capability".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK_THREADS = 256  # kThreads in launch.hpp
WARPS = BLOCK_THREADS // 32
REGISTERS = 64 << 10  # 32-bit registers of a multiprocessor, a quarter for each of four schedulers
_RESERVED = 1 << 10  # bytes of shared memory that CUDA takes for each block

# Architecture: bytes of shared memory of a multiprocessor, and threads.
_MULTIPROCESSORS = {
    "sm_80": (164 << 10, 2048),
    "sm_86": (100 << 10, 1536),
    "sm_89": (100 << 10, 1536),
    "sm_90a": (228 << 10, 2048),
    "sm_100": (228 << 10, 2048),
    "sm_120": (100 << 10, 1536),
}

_PRINTED = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers[^\n]*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Resources:
    """The resources of a kernel on an architecture.

    Attributes:
        registers: of a thread.
        shared: static shared memory of a block, in bytes.
        local: local memory of a thread, in bytes: its stack, and what spills.
    """

    kernel: str
    architecture: str
    registers: int
    shared: int
    local: int

    def blocks(self, dynamic: int = 0) -> int:
        """Blocks of 256 threads that run on a multiprocessor at once, with `dynamic` bytes of shared memory each."""
        shared, threads = _MULTIPROCESSORS[self.architecture]
        of_a_warp = -(-self.registers * 32 // 256) * 256  # registers are given to a warp in pieces of 256
        by_registers = 4 * (REGISTERS // 4 // of_a_warp) // WARPS
        of_a_block = self.shared + dynamic + _RESERVED
        return min(by_registers, threads // BLOCK_THREADS, shared // of_a_block)


def read_resources(printed: str) -> Iterator[Resources]:
    """The resources of every kernel in what `nvcc -Xptxas -v` printed."""
    for match in _PRINTED.finditer(printed):
        shared = re.search(r"(\d+) bytes smem", match[0])
        local = sum(int(match[name]) for name in ("stack", "stores", "loads"))
        yield Resources(
            match["kernel"], match["architecture"], int(match["registers"]), int(shared[1]) if shared else 0, local
        )
