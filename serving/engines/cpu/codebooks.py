"""Makes the plans of label maps, once per distinct map, and their entries, once per distinct patch."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, isa_dtype
from kernels.layouts import BLOCK, storage_dtype
from kernels.ops.plan import Level, concatenate_patches, plan_maps
from kernels.program import Pool
from kernels.rectangles import Rectangle
from serving.engines.cpu.entry_program import EntryProgram
from serving.engines.cpu.entry_tables import EntryTables
from serving.engines.cpu.memory import Arena, Block
from serving.engines.cpu.pack import PackedGenerator
from serving.engines.map_cache import MapCache, MapKey
from serving.engines.patch_store import is_stale, plan_part
from serving.engines.timings import Timings
from spade_core.config import level_sizes
from spade_core.types import Int32, Symbols

Positions = npt.NDArray[np.int64]

PLAN_SHARE = 8  # one in so many bytes of the cache is for plans by map
SMALL_AREA = 64 * 64  # pixels that one thread plans sooner than the pool wakes


@dataclass(frozen=True, eq=False)
class MapPlan:
    """The plan of one label map, whose entries lie in the patch store.

    Attributes:
        index: int32 [h, w] for each level: slots of the store.
        rows: U5 for each level, the number of distinct 5x5 patches.
        oldest: for each level, the lowest position of its patches, see `PatchStore.horizons`.
    """

    index: tuple[Int32, ...]
    rows: tuple[int, ...]
    oldest: tuple[int, ...]

    @property
    def memory(self) -> MapPlan:
        """No other map shares this plan's memory."""
        return self

    @property
    def bytes(self) -> int:
        """Bytes of the index, and about as many as the cache's key has."""
        return sum(index.nbytes for index in self.index) * 3 // 2


@dataclass(frozen=True, eq=False)
class MapCodebooks:
    """What the convs need of one label map.

    Attributes:
        index: int32 [h, w] for each level: rows of the level's entries.
        rows: U5 for each level, the number of distinct 5x5 patches.
        oldest: as in `MapPlan`; None: the entries lie outside the store and go with this map.
        entries: uint64 [norms], in the order of the blocks and their norms: the address of the map's entries
            T [CB, U5, 2, 32], which are rows of a table that several maps share.
        entry_rows: int64 [norms]: rows of each whole table.
        memory: what holds the tables, unless the store does.
    """

    index: tuple[Int32, ...]
    rows: tuple[int, ...]
    oldest: tuple[int, ...] | None
    entries: npt.NDArray[np.uint64]
    entry_rows: Positions
    memory: Block | None = None

    @property
    def pixels(self) -> int:
        """Pixels of all levels together."""
        return sum(index.size for index in self.index)


@dataclass(frozen=True, eq=False)
class Planned:
    """Label maps whose codebooks have their place in memory.

    Attributes:
        maps: the codebooks of each image's map.
        new: plans to put into the cache once `CodebookMaker.make` has computed their entries, by key.
        unmade: whether `make` has entries to compute.
        scratch: the memory that computing the entries reads, kept alive.
    """

    maps: Sequence[MapCodebooks]
    new: Mapping[MapKey, MapPlan]
    unmade: bool
    scratch: tuple[object, ...] = ()


class CodebookMaker:
    """Makes the codebooks of label maps. One program serves every call; each call sets the program's arguments.

    Args:
        packed, isa: the norms' weights, and the ISA that the weights are packed for.
        pool: threads that plan maps and run the program.
        cache_bytes: memory for entries by patch and for plans by map; 0 keeps nothing.
    """

    def __init__(self, packed: PackedGenerator, isa: Isa, pool: Pool, cache_bytes: int) -> None:
        self._packed, self._pool = packed, pool
        dtype = storage_dtype(isa_dtype(isa))
        self._row_bytes = 2 * BLOCK * dtype.itemsize  # bytes of one entry in one block of channels
        self._memory = Arena()
        self._program = EntryProgram(packed, isa, pool, self._memory)
        self._norms = self._program.norms
        config, of_plans = packed.config, cache_bytes // PLAN_SHARE
        levels = [(norm.level, norm.blocks) for norm in self._norms]
        self.store = EntryTables(levels, config, dtype, cache_bytes - of_plans)
        self.plans: MapCache[MapPlan] = MapCache(of_plans)

    def plan(self, symbols: Symbols, keys: Sequence[MapKey], timings: Timings) -> Planned:
        """Plan the maps of symbols [N, H, W] that the cache does not hold; equal maps are planned once.

        `make` must run before the next call of `plan` or `edit`, which overwrites the program's arguments.
        """
        lookup = self.plans.look_up(keys)
        kept, plans = dict(lookup.kept), dict[MapKey, list[Level]]()
        missing = list(lookup.missing)
        began = time.perf_counter()
        while True:
            if missing:
                maps = symbols if len(missing) == len(keys) else symbols[[keys.index(key) for key in missing]]
                plans.update(zip(missing, self._plan(maps), strict=True))
            bounds = self._bounds(plans.values())
            fits = self.store.takes(bounds)
            horizons = self.store.horizons(bounds if fits else [0] * len(bounds))
            # A kept plan whose patches would be forgotten in this call is planned again.
            missing = [key for key, of_map in kept.items() if is_stale(of_map.oldest, horizons)]
            if not missing:
                break
            kept = {key: of_map for key, of_map in kept.items() if key not in missing}
        timings.cached_maps += sum(key in kept for key in keys)
        if not plans:
            return Planned([self._stored(kept[key]) for key in keys], {}, False)
        new, codebooks, scratch = self._place(plans, bounds) if fits else self._set_alone(plans)
        codebooks |= {key: self._stored(of_map) for key, of_map in kept.items()}
        timings.plan_s += time.perf_counter() - began
        return Planned([codebooks[key] for key in keys], new, True, scratch)

    def edit(
        self, index: Sequence[Int32], oldest: list[int], symbols: Symbols, changed: Sequence[Rectangle],
        timings: Timings,
    ) -> Planned | None:  # fmt: skip
        """Plan the pixels of one map again whose patches have changed.

        Args:
            index: int32 [1, h, w] for each level, as `plan` made it for the map before; changed in place.
            oldest: for each level, as `plan` returned it; changed in place.
            symbols: uint16 [H, W], the map now.
            changed: for each level, the pixels whose patches may have changed.

        Returns None, with nothing changed, where the store no longer holds the map before or cannot take the new one.
        """
        began = time.perf_counter()
        parts = [
            plan_part(
                symbols, of_level.shape[1:], area, self._packed.config, self._pool if area.area > SMALL_AREA else None
            )
            for of_level, area in zip(index, changed, strict=True)
        ]
        bounds = [0 if part is None else len(part[0].patches5) for part in parts]
        if not self.store.takes(bounds) or is_stale(oldest, self.store.horizons(bounds)):
            return None
        if not any(bounds):
            return Planned([], {}, False)
        self.store.begin(bounds)
        for number, (part, area) in enumerate(zip(parts, changed, strict=True)):
            if part is not None:
                plan, slots = part
                oldest[number] = min(oldest[number], self.store.place(number, plan, slots))
                index[number][0][area.slices] = slots
        scratch = self._set_new()
        timings.plan_s += time.perf_counter() - began
        return Planned([], {}, True, scratch)

    def make(self, planned: Planned, timings: Timings) -> None:
        """Compute the entries that the last call of `plan` or `edit` found missing."""
        if not planned.unmade:
            return
        timings.codebook_s += self._program.run()
        self.store.done()
        self.plans.put(planned.new)

    def _bounds(self, plans: Collection[Sequence[Level]]) -> list[int]:
        """For each level, the most patches that may be new in a call."""
        if not plans:
            return [0] * (1 + max(norm.level for norm in self._norms))
        return [sum(len(level.patches5) for level in of_maps) for of_maps in zip(*plans, strict=True)]

    def _place(
        self, plans: Mapping[MapKey, Sequence[Level]], bounds: Sequence[int]
    ) -> tuple[dict[MapKey, MapPlan], dict[MapKey, MapCodebooks], tuple[object, ...]]:
        """Give the patches of maps their slots in the store, and set the program to compute the new ones."""
        self.store.begin(bounds)
        new: dict[MapKey, MapPlan] = {}
        for key, levels in plans.items():
            index = tuple(level.index[0] for level in levels)
            oldest = [self.store.place(i, level, index[i]) for i, level in enumerate(levels)]
            new[key] = MapPlan(index, tuple(len(level.patches5) for level in levels), tuple(oldest))
        scratch = self._set_new()
        return new, {key: self._stored(of_map) for key, of_map in new.items()}, scratch

    def _set_new(self) -> tuple[object, ...]:
        """Set the program to compute the store's new patches. Returns the memory that the program reads."""
        patches = self.store.new_patches()
        addresses = [
            int(address) + patches[norm.level].slot * self._row_bytes
            for address, norm in zip(self.store.addresses, self._norms, strict=True)
        ]
        rows = [int(rows) for rows in self.store.rows]
        return patches, self._program.set([(of.patches3, of.patches5) for of in patches], addresses, rows)

    def _set_alone(
        self, plans: Mapping[MapKey, Sequence[Level]]
    ) -> tuple[dict[MapKey, MapPlan], dict[MapKey, MapCodebooks], tuple[object, ...]]:
        """Set the program to compute entries outside the store, which is too small for these maps."""
        patches = [concatenate_patches(of_maps) for of_maps in zip(*plans.values(), strict=True)]
        rows = [len(patches[norm.level][1]) for norm in self._norms]
        block = self._memory.take(
            sum(norm.blocks * count for norm, count in zip(self._norms, rows, strict=True)) * self._row_bytes
        )
        entries, at = [], block.address
        for norm, count in zip(self._norms, rows, strict=True):
            entries.append(at)
            at += norm.blocks * count * self._row_bytes
        actv = self._program.set(patches, entries, rows)
        codebooks = dict(zip(plans, self._of_maps(list(plans.values()), entries, rows, block), strict=True))
        return {}, codebooks, (patches, actv)

    def _stored(self, plan: MapPlan) -> MapCodebooks:
        """The codebooks of a map in the store."""
        return MapCodebooks(plan.index, plan.rows, plan.oldest, self.store.addresses, self.store.rows)

    def _plan(self, symbols: Symbols) -> list[list[Level]]:
        config = self._packed.config
        sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)
        return plan_maps(symbols, sizes, config.symbols, config.spade_kernel, self._pool)

    def _of_maps(
        self, plans: Sequence[Sequence[Level]], entries: Sequence[int], entry_rows: Sequence[int], block: Block
    ) -> list[MapCodebooks]:
        """Each map's rows in the tables, where the entries of the maps lie one map after the other."""
        maps, starts = [], [0] * len(plans[0])
        for levels in plans:
            of_map = [at + starts[norm.level] * self._row_bytes for at, norm in zip(entries, self._norms, strict=True)]
            rows = [len(level.patches5) for level in levels]
            maps.append(
                MapCodebooks(
                    tuple(level.index[0] for level in levels), tuple(rows), None, np.array(of_map, np.uint64),
                    np.array(entry_rows, np.int64), block,
                )
            )  # fmt: skip
            starts = [start + count for start, count in zip(starts, rows, strict=True)]
        return maps
