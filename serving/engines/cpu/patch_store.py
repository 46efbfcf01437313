"""The entries of label patches, kept by patch: a patch that any map held before costs a look-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.layouts import BLOCK, Array, aligned_empty
from kernels.native import native
from kernels.ops.plan import Level
from spade_core.types import Int32

BOOKKEEPING_BYTES = 32  # of a patch, beside its symbols and entries


@dataclass(frozen=True, eq=False)
class NewPatches:
    """The patches of one level that a call found new, as a plan has them.

    Attributes:
        slot: row of the level's tables for the entries of the first one; the others follow.
    """

    patches3: Int32
    patches5: Int32
    slot: int


class PatchStore:
    """Entries of the patches that were new last, in at most `limit` bytes. Not thread-safe.

    Each level has a fixed number of slots: rows of the level's tables. Once all are taken, the patches that were new
    longest ago go first, but a patch that is met again in the older half is new again. A plan's index names slots, and
    it holds while the lowest position that `place` returned for it is not below `horizons`.

    Args:
        norms: (level, blocks of channels) of each norm.
        n_symbols, kernel_size: of the plans.
        dtype: T.
        limit: bytes.

    Attributes:
        addresses: uint64 [norms], of each norm's table T [CB, rows, 2, 32].
        rows: int64 [norms], of each norm's table.
    """

    def __init__(
        self, norms: Sequence[tuple[int, int]], n_symbols: int, kernel_size: int, dtype: np.dtype[np.generic],
        limit: int,
    ) -> None:  # fmt: skip
        self._kernel_size = kernel_size
        levels = range(1 + max(level for level, _ in norms))
        row_bytes = [2 * (2 * kernel_size - 1) ** 2 + BOOKKEEPING_BYTES for _ in levels]
        for level, blocks in norms:
            row_bytes[level] += blocks * 2 * BLOCK * dtype.itemsize
        # The smallest levels have few patches, so they get smaller shares of the limit.
        shares = [min(4, 1 << level) for level in levels]
        self._most = [limit * share // sum(shares) // size for share, size in zip(shares, row_bytes, strict=True)]
        self._known = [native.PatchTable(most, n_symbols, kernel_size) for most in self._most]
        self._tables: list[Array] = [
            aligned_empty((blocks, self._most[level], 2, BLOCK), dtype) for level, blocks in norms
        ]
        self.addresses = np.array([table.ctypes.data for table in self._tables], np.uint64)
        self.rows = np.array([self._most[level] for level, _ in norms], np.int64)
        self._computing = False

    def takes(self, bounds: Sequence[int]) -> bool:
        """Whether the store can hold so many new patches of each level."""
        return all(bound <= most for bound, most in zip(bounds, self._most, strict=True))

    def horizons(self, bounds: Sequence[int]) -> list[int]:
        """For each level, the lowest position that stays known in a call with at most so many new patches."""
        return [known.horizon(bound) for known, bound in zip(self._known, bounds, strict=True)]

    def begin(self, bounds: Sequence[int]) -> None:
        """Start a call whose `horizons` the caller has asked for. `done` must follow once its entries are computed."""
        for known, bound in zip(self._known, bounds, strict=True):
            if self._computing:  # the last call failed, so some slots hold no entries
                known.forget()
            known.begin(bound)
        self._computing = True

    def place(self, level: int, plan: Level, index: Int32) -> int:
        """Replace a level's rows of patches5 in `index` by slots; return the lowest position of a patch."""
        return self._known[level].place(plan.patches3, plan.patches5, index)

    def new_patches(self) -> list[NewPatches]:
        """The new patches of each level since `begin`."""
        return [NewPatches(*known.new_patches(self._kernel_size**2)) for known in self._known]

    def done(self) -> None:
        """The entries of all new patches are computed."""
        self._computing = False
