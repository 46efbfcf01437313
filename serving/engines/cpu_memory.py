"""Memory that is used again: the system hands out fresh pages more slowly than the kernels write them."""

from __future__ import annotations

import math
import weakref
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
    """Hands out blocks and keeps the memory of those that are gone, the last `KEPT` of them."""

    def __init__(self) -> None:
        self.free: list[npt.NDArray[np.uint8]] = []

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes, in freed memory if some fits and is not twice as large."""
        wanted = max(1, -(-size // GRAIN)) * GRAIN
        fitting = [i for i, raw in enumerate(self.free) if wanted <= raw.nbytes <= 2 * wanted]
        if fitting:
            raw = self.free.pop(min(fitting, key=lambda i: self.free[i].nbytes))
        else:
            raw = aligned_empty((wanted,), np.uint8)
        block = Block(raw)
        weakref.finalize(block, self._give_back, raw).atexit = False
        return block

    def _give_back(self, raw: npt.NDArray[np.uint8]) -> None:
        self.free.append(raw)
        del self.free[:-KEPT]
