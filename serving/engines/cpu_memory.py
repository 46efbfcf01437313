"""Memory that is used again: the system hands out fresh pages more slowly than the kernels write them."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kernels.layouts import Array, aligned_empty

ALIGNMENT = 64
GRAIN = 4 << 20  # sizes are whole multiples, so that one block's memory fits the next
KEPT = 8  # free blocks


class Block:
    """A piece of memory. When the last reference to it goes, its memory may be handed out again."""

    def __init__(self, raw: npt.NDArray[np.uint8]) -> None:
        self._raw = raw

    def arrays(self, shapes: Sequence[tuple[int, ...]], dtype: np.dtype[np.generic]) -> list[Array]:
        """Uninitialised arrays one behind the other. They must not be used after the block."""
        arrays, start = [], 0
        for shape in shapes:
            stop = start + math.prod(shape) * dtype.itemsize
            arrays.append(self._raw[start:stop].view(dtype).reshape(shape))
            start = -(-stop // ALIGNMENT) * ALIGNMENT
        return arrays


class Recycler:
    """Hands out blocks and keeps the memory of those that are gone, the last `KEPT` of them.

    One thread takes at a time. The last reference to a block may go in any thread and at any moment.
    """

    def __init__(self) -> None:
        self.free: deque[npt.NDArray[np.uint8]] = deque(maxlen=KEPT)

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes, in freed memory if some fits and is not twice as large."""
        wanted = max(1, -(-size // GRAIN)) * GRAIN
        free = [self.free.popleft() for _ in range(len(self.free))]  # a list that no other thread changes meanwhile
        fitting = [raw for raw in free if wanted <= raw.nbytes <= 2 * wanted]
        taken = min(fitting, key=lambda raw: raw.nbytes) if fitting else aligned_empty((wanted,), np.uint8)
        self.free.extend(raw for raw in free if raw is not taken)
        block = Block(taken)
        weakref.finalize(block, self.free.append, taken).atexit = False
        return block
