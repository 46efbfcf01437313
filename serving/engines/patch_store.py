"""Where the entries of label patches lie, by patch: a patch that any map held before costs a look-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.native import native
from kernels.ops.plan import Level, plan_maps
from kernels.program import Pool
from kernels.rectangles import Rectangle
from spade_core.config import GeneratorConfig
from spade_core.types import Int32, Symbols

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
    """Slots for the entries of the patches that were new last, in at most `limit` bytes. Not thread-safe.

    A subclass holds the entries, in tables of `slots` rows. Each level has a fixed number of slots: rows of the
    level's tables. Once all are taken, the patches that were new longest ago go first, but a patch that is met
    again in the older half is new again. A plan's index names slots, and it holds while the lowest position that
    `place` returned for it is not below `horizons`.

    Args:
        entries: (level, bytes of an entry) of each norm.
        config: of the plans.
        limit: bytes.

    Attributes:
        slots: for each level, the rows of its tables.
    """

    def __init__(self, entries: Sequence[tuple[int, int]], config: GeneratorConfig, limit: int) -> None:
        self._kernel_size = config.spade_kernel
        levels = range(1 + max(level for level, _ in entries))
        row_bytes = [2 * (2 * self._kernel_size - 1) ** 2 + BOOKKEEPING_BYTES for _ in levels]
        for level, entry_bytes in entries:
            row_bytes[level] += entry_bytes
        # The smallest levels have few patches, so they get smaller shares of the limit.
        shares = [min(4, 1 << level) for level in levels]
        self.slots = [limit * share // sum(shares) // size for share, size in zip(shares, row_bytes, strict=True)]
        self._known = [native.PatchTable(most, config.symbols, self._kernel_size) for most in self.slots]
        self._computing = False

    def takes(self, bounds: Sequence[int]) -> bool:
        """Whether the store can hold so many new patches of each level."""
        return all(bound <= most for bound, most in zip(bounds, self.slots, strict=True))

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


def is_stale(oldest: Sequence[int], horizons: Sequence[int]) -> bool:
    """Whether a plan's patches are no longer in the store, for some level."""
    return any(position < horizon for position, horizon in zip(oldest, horizons, strict=True))


def plan_part(
    symbols: Symbols, size: tuple[int, ...], area: Rectangle, config: GeneratorConfig, pool: Pool | None = None
) -> tuple[Level, Int32] | None:
    """The plan of an area of one level of a map, and the area's own index. The plan has patches beyond the area too.

    Args:
        symbols: uint16 [H, W], the map.
        size: of the level.
        area: of the level's pixels; None is returned for no pixel.
        pool: threads that plan; None plans on this thread.
    """
    if not area.area:
        return None
    step = symbols.shape[0] // size[0]
    around = area.grown(2 * (config.spade_kernel // 2), size[0], size[1])
    small = np.ascontiguousarray(symbols[::step, ::step][around.slices])[None]
    ((level,),) = plan_maps(small, [small.shape[1:]], config.symbols, config.spade_kernel, pool)
    top, left = area.top - around.top, area.left - around.left
    inner = level.index[0][top : top + area.height, left : left + area.width]
    return level, np.ascontiguousarray(inner)
