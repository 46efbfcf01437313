"""The patch store of the cpu engine: entries in the layout of the native kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.layouts import BLOCK, Array, aligned_empty
from serving.engines.patch_store import PatchStore
from spade_core.config import GeneratorConfig


class EntryTables(PatchStore):
    """The patch store, with the entries of each norm.

    Args:
        norms: (level, blocks of channels) of each norm.
        config, limit: as in `PatchStore`.
        dtype: T.

    Attributes:
        addresses: uint64 [norms], of each norm's table T [CB, rows, 2, 32].
        rows: int64 [norms], of each norm's table.
    """

    def __init__(
        self, norms: Sequence[tuple[int, int]], config: GeneratorConfig, dtype: np.dtype[np.generic], limit: int
    ) -> None:  # fmt: skip
        super().__init__([(level, blocks * 2 * BLOCK * dtype.itemsize) for level, blocks in norms], config, limit)
        self._tables: list[Array] = [
            aligned_empty((blocks, self.slots[level], 2, BLOCK), dtype) for level, blocks in norms
        ]
        self.addresses = np.array([table.ctypes.data for table in self._tables], np.uint64)
        self.rows = np.array([self.slots[level] for level, _ in norms], np.int64)
