"""Plans and codebooks of label maps, computed once per distinct map and kept for maps that come again."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from kernels.codebook import choose_form
from kernels.layouts import BLOCK, Array, aligned_empty, blocks, storage_dtype
from kernels.plan import Level, concatenate_patches, plan_maps
from kernels.steps import (
    Form,
    Int8,
    Pool,
    Program,
    Step,
    Tier,
    codebook,
    embed,
    input_dtype,
    run,
    tier_dtype,
    tier_forms,
)
from serving.engines.cpu_memory import ALIGNMENT, Block, Recycler
from serving.engines.cpu_pack import PackedGenerator, PackedNorm
from spade_core.config import HIDDEN, level_sizes

Symbols = npt.NDArray[np.uint16]
Int32 = npt.NDArray[np.int32]
Positions = npt.NDArray[np.int64]
Key = tuple[tuple[int, ...], bytes]  # of a map: all of it, so equal keys are equal maps

ACTV_BUFFERS = 3  # of hidden rows, which norms take in turn


@dataclass(frozen=True, eq=False)
class MapCodebooks:
    """What the convs need of one label map.

    Attributes:
        index: int32 [h, w] of each level, rows of the level's entries.
        rows: U5, distinct 5x5 patches of each level.
        entries: uint64 [norms], in the order of the blocks and their norms: the address of T [CB, U5, 2, 32], which
            are rows of the table that the map's batch shares.
        entry_rows: int64 [norms], of those tables.
        memory: what the entries lie in.
    """

    index: tuple[Int32, ...]
    rows: tuple[int, ...]
    entries: npt.NDArray[np.uint64]
    entry_rows: Positions
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
        self._maps: OrderedDict[Key, MapCodebooks] = OrderedDict()
        self._holders: Counter[Block] = Counter()  # how many kept maps hold a block

    def get(self, key: Key) -> MapCodebooks | None:
        found = self._maps.get(key)
        if found is not None:
            self._maps.move_to_end(key)
        return found

    def put(self, key: Key, codebooks: MapCodebooks) -> None:
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


@dataclass(frozen=True, eq=False)
class Planned:
    """Maps whose codebooks have their place.

    Attributes:
        maps: of each image.
        new: by key those whose entries are yet to be made.
        scratch: what making them reads besides.
    """

    maps: list[MapCodebooks]
    new: dict[Key, MapCodebooks]
    scratch: tuple[object, ...] = ()


class CodebookMaker:
    """Makes codebooks of label maps, computed once per distinct map. One program, whose arguments each call sets.

    Args:
        packed, tier: what the norms are made of.
        pool: plans, and runs the program.
    """

    def __init__(self, packed: PackedGenerator, tier: Tier, pool: Pool, cache: CodebookCache) -> None:
        self._packed, self._tier, self._pool, self.cache = packed, tier, pool, cache
        self._dtype, self._input_dtype = storage_dtype(tier_dtype(tier)), storage_dtype(input_dtype(tier))
        self._norms = [(block.level, norm) for block in packed.blocks for norm in block.norms]
        self._levels = np.asarray([level for level, _ in self._norms])
        self._row_bytes = 2 * BLOCK * self._dtype.itemsize  # of an entry in one block
        self._blocks = np.asarray([blocks(norm.channels) for _, norm in self._norms])
        self._memory = Recycler()
        self._program, self._of_embeds, self._of_books = self._write_program()
        self._embeds = {field: self._program.column("embed", field) for field in ("patches", "rows", "out")}
        fields = ("actv", "actv_rows", "patches", "rows", "entry_rows", "entries", "form", "windows")
        self._books = {field: self._program.column("codebook", field) for field in fields}

    def plan(self, symbols: Symbols, times: CodebookTimes) -> Planned:
        """The codebooks of each map of symbols [N, H, W], of which `make` computes those that are not at hand.

        Equal maps are planned once. The next call of `plan` takes what this one set up.
        """
        keys = [(one.shape, one.tobytes()) for one in symbols]
        found = {key: codebooks for key in keys if (codebooks := self.cache.get(key)) is not None}
        times.cached += sum(key in found for key in keys)
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        if not missing:
            return Planned([found[key] for key in keys], {})
        began = time.perf_counter()
        maps = symbols if len(missing) == len(symbols) else np.stack([symbols[keys.index(key)] for key in missing])
        planned, scratch = self._set(self._plan(maps))
        new = dict(zip(missing, planned, strict=True))
        found |= new
        times.plan_s += time.perf_counter() - began
        return Planned([found[key] for key in keys], new, scratch)

    def make(self, planned: Planned, times: CodebookTimes) -> None:
        """Computes what the last call of `plan` found missing, and keeps it for maps that come again."""
        if not planned.new:
            return
        times.codebook_s += sum(run(self._program, self._pool).values())
        for key, codebooks in planned.new.items():
            self.cache.put(key, codebooks)

    def _write_program(self) -> tuple[Program, Positions, Positions]:
        """The program, and where the steps of each norm are in it: its embed and its codebook.

        An embed stands before the codebook of the norm before its own. A codebook waits for its embed, and an embed for
        the codebook that last read its buffer.
        """
        of_norms = [self._steps(norm) for _, norm in self._norms]
        steps: list[Step] = []
        overlaps: list[int] = []
        embeds: list[int] = []
        books: list[int] = []
        for i in range(len(of_norms) + 1):
            if i < len(of_norms):
                awaited = books[i - ACTV_BUFFERS] if i >= ACTV_BUFFERS else -1
                embeds.append(len(steps))
                overlaps.append(len(steps) - awaited - 1)
                steps.append(of_norms[i][0])
            if i > 0:
                books.append(len(steps))
                overlaps.append(len(steps) - embeds[i - 1] - 1)
                steps.append(of_norms[i - 1][1])
        return Program(steps, overlaps), np.asarray(embeds), np.asarray(books)

    def _steps(self, norm: PackedNorm) -> tuple[Step, Step]:
        """The steps of a norm on one patch, which stand for their checks; `_set` points them at a map's."""
        taps = self._packed.config.spade_kernel**2
        patches = np.zeros((1, taps), np.int32)
        int8 = None
        if norm.scale is not None and norm.interior is not None:
            int8 = Int8(norm.scale, patches, norm.interior)
        actv = aligned_empty((2, HIDDEN), self._input_dtype if int8 is None else np.uint8)
        entries = aligned_empty((blocks(norm.channels), 1, 2, BLOCK), self._dtype)
        return (
            embed(self._tier, norm.table, norm.shared_bias, patches, actv, relu=True, zero_row=True),
            codebook(self._tier, actv, patches, norm.weight, norm.bias, entries, form="gathered", int8=int8),
        )

    def _set(self, plans: Sequence[Sequence[Level]]) -> tuple[list[MapCodebooks], tuple[object, ...]]:
        """Points the program at the patches of maps and at memory for their entries; what it reads, besides."""
        patches = [concatenate_patches(of_maps) for of_maps in zip(*plans, strict=True)]
        of_levels = [(three.ctypes.data, len(three), five.ctypes.data, len(five)) for three, five in patches]
        patches3, rows3, patches5, rows5 = np.asarray(of_levels)[self._levels].T  # [norms] each
        sizes = self._blocks * rows5 * self._row_bytes
        size = int(sizes.sum())
        self.cache.make_room(size)
        block = self._memory.take(size)
        entries = block.address + np.cumsum(sizes) - sizes
        actv_bytes = -(-(int(rows3.max()) + 1) * HIDDEN * self._input_dtype.itemsize // ALIGNMENT) * ALIGNMENT
        scratch = self._memory.take(ACTV_BUFFERS * actv_bytes)
        actv = scratch.address + np.arange(len(entries)) % ACTV_BUFFERS * actv_bytes
        self._set_steps(self._embeds, self._of_embeds, patches=patches3, rows=rows3, out=actv)
        self._set_steps(
            self._books, self._of_books, actv=actv, actv_rows=rows3 + 1, patches=patches5, rows=rows5,
            entry_rows=rows5, entries=entries, windows=patches3, form=self._forms(rows3 + 1, rows5),
        )  # fmt: skip
        return self._of_maps(plans, entries, rows5, block), (patches, scratch)

    def _set_steps(self, columns: dict[str, Array], of: Positions, **values: Positions) -> None:
        for field, value in values.items():
            columns[field][of] = value

    def _forms(self, actv_rows: Positions, rows5: Positions) -> Positions:
        """The cheaper form of each norm's codebook."""
        forms = tier_forms(self._tier)
        if len(forms) == 1:
            return np.full(len(rows5), get_args(Form).index(forms[0]))
        chosen = [
            choose_form(self._tier, rows, of_actv, n_blocks=n_blocks, threads=self._pool.threads)
            for rows, of_actv, n_blocks in zip(rows5.tolist(), actv_rows.tolist(), self._blocks.tolist(), strict=True)
        ]
        return np.asarray([get_args(Form).index(form) for form in chosen])

    def _plan(self, symbols: Symbols) -> list[list[Level]]:
        config = self._packed.config
        sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)
        return plan_maps(symbols, sizes, config.symbols, config.spade_kernel, self._pool)

    def _of_maps(
        self, plans: Sequence[Sequence[Level]], entries: Positions, entry_rows: Positions, block: Block
    ) -> list[MapCodebooks]:
        """Each map's rows of the tables, which hold the maps' patches one behind the other."""
        maps, starts = [], np.zeros(len(plans[0]), np.int64)
        for levels in plans:
            rows = np.asarray([len(level.patches5) for level in levels])
            of_map = (entries + starts[self._levels] * self._row_bytes).astype(np.uint64)
            index = tuple(level.index[0] for level in levels)
            maps.append(MapCodebooks(index, tuple(rows.tolist()), of_map, entry_rows, block))
            starts = starts + rows
        return maps
