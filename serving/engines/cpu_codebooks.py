"""Plans and codebooks of label maps, computed once per distinct map and kept for maps that come again."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from kernels.codebook import choose_form
from kernels.layouts import BLOCK, Array, aligned_empty, blocks, storage_dtype
from kernels.plan import Level, concatenate_patches, plan
from kernels.steps import Form, Pool, Program, Step, Tier, codebook, embed, run, tier_dtype
from serving.engines.cpu_memory import Block, Recycler
from serving.engines.cpu_pack import PackedGenerator, PackedNorm
from spade_core.config import HIDDEN, level_sizes

Symbols = npt.NDArray[np.uint16]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class MapCodebooks:
    """What the convs need of one label map.

    Attributes:
        index: int32 [h, w] of each level, rows of the level's entries.
        rows: U5, distinct 5x5 patches of each level.
        entries: T [CB, U5, 2, 32] of each norm, in the order of the blocks and their norms: rows of the tables that
            the map's batch shares.
        memory: what the entries lie in.
    """

    index: tuple[Int32, ...]
    rows: tuple[int, ...]
    entries: tuple[Array, ...]
    memory: Block

    @property
    def pixels(self) -> int:
        """Over all levels."""
        return sum(index.size for index in self.index)


@dataclass
class CodebookTimes:
    """Seconds of one call, and how many of its maps were at hand."""

    plan_s: float = 0.0
    codebook_s: float = 0.0
    cached: int = 0


class CodebookCache:
    """The most recently used maps' codebooks, whose entries take at most `limit` bytes; 0 keeps none. Not thread-safe.

    Maps of one batch share memory, which counts as long as one of them is kept.

    Attributes:
        bytes: of the memory that the kept maps hold.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._maps: OrderedDict[bytes, MapCodebooks] = OrderedDict()
        self._holders: Counter[Block] = Counter()  # how many kept maps hold a block

    def get(self, key: bytes) -> MapCodebooks | None:
        found = self._maps.get(key)
        if found is not None:
            self._maps.move_to_end(key)
        return found

    def put(self, key: bytes, codebooks: MapCodebooks) -> None:
        """Keep the codebooks of a map that is not kept yet."""
        block = codebooks.memory
        if block.bytes > self.limit:
            return
        self._maps[key] = codebooks
        self.bytes += 0 if self._holders[block] else block.bytes
        self._holders[block] += 1
        self.make_room(0)

    def make_room(self, size: int) -> None:
        """Drop the oldest maps until `size` more bytes keep to the limit, so that their memory is free for them."""
        while self._maps and self.bytes + size > self.limit:
            block = self._maps.popitem(last=False)[1].memory
            self._holders[block] -= 1
            if not self._holders[block]:
                del self._holders[block]
                self.bytes -= block.bytes


class CodebookMaker:
    """Makes codebooks of label maps, computed once per distinct map. One program, whose arguments each call sets.

    Args:
        packed, tier: what the norms are made of.
        pool: runs the program; as many threads plan.
    """

    def __init__(self, packed: PackedGenerator, tier: Tier, pool: Pool, cache: CodebookCache) -> None:
        self._packed, self._tier, self._pool, self.cache = packed, tier, pool, cache
        self._dtype = storage_dtype(tier_dtype(tier))
        self._norms = [(block.level, norm) for block in packed.blocks for norm in block.norms]
        self._planners = ThreadPoolExecutor(pool.threads, "plan")
        self._memory = Recycler()
        program = Program([step for _, norm in self._norms for step in self._steps(norm)])
        self._embeds = {field: program.column(slice(0, None, 2), field) for field in ("patches", "rows", "out")}
        fields = ("actv", "actv_rows", "patches", "rows", "entry_rows", "entries", "form")
        self._books = {field: program.column(slice(1, None, 2), field) for field in fields}
        self._program = program

    def make(self, symbols: Symbols, times: CodebookTimes) -> list[MapCodebooks]:
        """The codebooks of each map of symbols [N, H, W]; equal maps, and maps in the cache, are computed once."""
        keys = [_key(one) for one in symbols]
        found = {key: codebooks for key in keys if (codebooks := self.cache.get(key)) is not None}
        times.cached += sum(key in found for key in keys)
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        if missing:
            maps = np.stack([symbols[keys.index(key)] for key in missing])
            for key, codebooks in zip(missing, self._compute(maps, times), strict=True):
                found[key] = codebooks
                self.cache.put(key, codebooks)
        return [found[key] for key in keys]

    def _steps(self, norm: PackedNorm) -> tuple[Step, Step]:
        """The steps of a norm on one patch, which stand for their checks; `_set` points them at a map's."""
        taps = self._packed.config.spade_kernel**2
        patches = np.zeros((1, taps), np.int32)
        actv = aligned_empty((2, HIDDEN), self._dtype)
        entries = aligned_empty((blocks(norm.channels), 1, 2, BLOCK), self._dtype)
        return (
            embed(self._tier, norm.table, norm.shared_bias, patches, actv, relu=True, zero_row=True),
            codebook(self._tier, actv, patches, norm.weight, norm.bias, entries, form="gathered"),
        )

    def _set(self, patches: Sequence[tuple[Int32, Int32]], actv: Array, tables: Sequence[Array]) -> None:
        """Points the program at patches3 and patches5 of each level, and at a table of entries for each norm."""
        levels = [level for level, _ in self._norms]
        rows3, rows5 = ([len(of) for of in both] for both in zip(*patches, strict=True))
        at3, at5 = ([of.ctypes.data for of in both] for both in zip(*patches, strict=True))
        forms = [
            self._form(rows3[level], rows5[level], len(table)) for level, table in zip(levels, tables, strict=True)
        ]
        of_norms = [rows5[level] for level in levels]
        self._embeds["patches"][:], self._embeds["out"][:] = [at3[level] for level in levels], actv.ctypes.data
        self._embeds["rows"][:] = [rows3[level] for level in levels]
        self._books["actv"][:], self._books["actv_rows"][:] = actv.ctypes.data, self._embeds["rows"] + 1
        self._books["patches"][:], self._books["rows"][:] = [at5[level] for level in levels], of_norms
        self._books["entries"][:], self._books["entry_rows"][:] = [table.ctypes.data for table in tables], of_norms
        self._books["form"][:] = forms

    def _form(self, rows3: int, rows5: int, n_blocks: int) -> int:
        form = choose_form(self._tier, rows5, rows3 + 1, n_blocks=n_blocks, threads=self._pool.threads)
        return get_args(Form).index(form)

    def _compute(self, symbols: Symbols, times: CodebookTimes) -> list[MapCodebooks]:
        began = time.perf_counter()
        plans = self._plan(symbols)
        patches = [concatenate_patches(of_maps) for of_maps in zip(*plans, strict=True)]
        planned = time.perf_counter()
        shapes = [(blocks(norm.channels), len(patches[level][1]), 2, BLOCK) for level, norm in self._norms]
        size = sum(math.prod(shape) for shape in shapes) * self._dtype.itemsize
        self.cache.make_room(size)
        block = self._memory.take(size)
        tables = block.arrays(shapes, self._dtype)
        actv_shape = (max(len(patches3) for patches3, _ in patches) + 1, HIDDEN)
        scratch = self._memory.take(math.prod(actv_shape) * self._dtype.itemsize)
        (actv,) = scratch.arrays([actv_shape], self._dtype)
        self._set(patches, actv, tables)
        run(self._program, self._pool)
        times.plan_s += planned - began
        times.codebook_s += time.perf_counter() - planned
        return self._of_maps(plans, tables, block)

    def _plan(self, symbols: Symbols) -> list[list[Level]]:
        """The levels of each map. Maps are planned side by side; of one alone, its largest level beside the others."""
        config = self._packed.config
        sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)

        def levels(maps: Symbols, of: Sequence[tuple[int, int]]) -> list[Level]:
            return plan(maps, of, config.symbols, config.spade_kernel)

        if len(symbols) == 1:
            small = self._planners.submit(levels, symbols, sizes[:-1])
            largest = levels(symbols, sizes[-1:])
            return [small.result() + largest]
        return list(self._planners.map(lambda n: levels(symbols[n : n + 1], sizes), range(len(symbols))))

    def _of_maps(self, plans: Sequence[Sequence[Level]], tables: Sequence[Array], block: Block) -> list[MapCodebooks]:
        """Each map's rows of the tables, which hold the maps' patches one behind the other."""
        maps, starts = [], [0] * len(plans[0])
        for levels in plans:
            rows = [len(level.patches5) for level in levels]
            entries = tuple(
                table[:, starts[level] : starts[level] + rows[level]]
                for (level, _), table in zip(self._norms, tables, strict=True)
            )
            maps.append(MapCodebooks(tuple(level.index[0] for level in levels), tuple(rows), entries, block))
            starts = [start + count for start, count in zip(starts, rows, strict=True)]
        return maps


def _key(symbols: Symbols) -> bytes:
    digest = hashlib.sha256(repr(symbols.shape).encode())  # processors have instructions for it
    digest.update(np.ascontiguousarray(symbols).data)
    return digest.digest()
