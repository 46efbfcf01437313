"""An arena of reusable memory: the system hands out fresh pages more slowly than the kernels write them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.layouts import aligned_empty

ALIGNMENT = 64
GRAIN = 256 << 10  # every block's size is a multiple
CHUNK = 1 << 30  # addresses reserved at once; the system gives a page when the page is first written

Raw = npt.NDArray[np.uint8]


class Block:
    """A piece of memory of `bytes` bytes. Once no reference to the block is left, the arena may reuse the memory.

    Attributes:
        address: start of the memory, a multiple of a cache line. Valid as long as the block is referenced.
    """

    def __init__(self, span: _Span, returned: deque[_Span]) -> None:
        self._span, self._returned = span, returned
        self.bytes = span.bytes
        self.address = span.start

    def __del__(self) -> None:
        self._returned.append(self._span)


@dataclass(frozen=True, eq=False)
class _Span:
    """The addresses start .. stop - 1 of a chunk."""

    chunk: Raw
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        return self.stop - self.start

    def is_before(self, other: _Span) -> bool:
        return self.chunk is other.chunk and self.stop == other.start


class Arena:
    """Hands out blocks at the lowest address where they fit, so that few pages are ever written for the first time.

    Only one thread may take blocks. Any thread may drop the last reference to a block, at any time. Written pages stay
    with the process, except the pages of blocks larger than a chunk.
    """

    def __init__(self) -> None:
        self._free: list[_Span] = []
        self._returned: deque[_Span] = deque()  # spans of blocks that nobody references any more

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes."""
        wanted = max(1, -(-size // GRAIN)) * GRAIN
        self._gather()
        at = next((i for i, span in enumerate(self._free) if span.bytes >= wanted), len(self._free))
        if at == len(self._free):
            chunk = aligned_empty((max(wanted, CHUNK),), np.uint8)
            self._free.append(_Span(chunk, chunk.ctypes.data, chunk.ctypes.data + chunk.nbytes))
        span = self._free[at]
        taken = _Span(span.chunk, span.start, span.start + wanted)
        self._free[at : at + 1] = [] if taken.stop == span.stop else [_Span(span.chunk, taken.stop, span.stop)]
        return Block(taken, self._returned)

    def _gather(self) -> None:
        """Take in the returned spans, join neighbours, and give chunks of large blocks back to the system."""
        if not self._returned:
            return
        while self._returned:
            self._free.append(self._returned.popleft())
        joined: list[_Span] = []
        for span in sorted(self._free, key=lambda one: one.start):
            if joined and joined[-1].is_before(span):
                joined[-1] = _Span(span.chunk, joined[-1].start, span.stop)
            else:
                joined.append(span)
        self._free = [span for span in joined if span.bytes <= CHUNK]
