"""Plans and codebooks of label maps, computed once per distinct map and kept for maps that come again."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from kernels.constants import HIDDEN
from kernels.isa import Form, Isa, input_dtype, isa_dtype, isa_forms
from kernels.layouts import BLOCK, aligned_empty, blocks, storage_dtype
from kernels.ops.codebook import Int8, choose_form, codebook
from kernels.ops.embed import embed
from kernels.ops.plan import Level, concatenate_patches, plan_maps
from kernels.program import Pool, Program, Step, run
from serving.engines.cpu.memory import ALIGNMENT, Arena, Block
from serving.engines.cpu.pack import PackedGenerator, PackedNorm
from spade_core.config import level_sizes
from spade_core.types import Int32, Symbols

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


@dataclass(frozen=True)
class _NormSteps:
    """Where a norm's arguments are in the program, see `CodebookMaker._set`, and what decides on them."""

    level: int
    blocks: int
    embed: list[int]
    codebook: list[int]


class CodebookMaker:
    """Makes codebooks of label maps, computed once per distinct map. One program, whose arguments each call sets.

    Args:
        packed, isa: what the norms are made of.
        pool: plans, and runs the program.
    """

    def __init__(self, packed: PackedGenerator, isa: Isa, pool: Pool, cache: CodebookCache) -> None:
        self._packed, self._isa, self._pool, self.cache = packed, isa, pool, cache
        self._dtype, self._input_dtype = storage_dtype(isa_dtype(isa)), storage_dtype(input_dtype(isa))
        self._row_bytes = 2 * BLOCK * self._dtype.itemsize  # of an entry in one block
        self._memory = Arena()
        self._program, self._norms = self._write_program()
        self._words = self._program.memory.data.cast("q")

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

    def _write_program(self) -> tuple[Program, list[_NormSteps]]:
        """The program, and where the arguments of each norm are in it.

        An embed stands before the codebook of the norm before its own. A codebook waits for its embed, and an embed for
        the codebook that last read its buffer.
        """
        norms = [(block.level, norm) for block in self._packed.blocks for norm in block.norms]
        of_norms = [self._steps(norm) for _, norm in norms]
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
        program = Program(steps, overlaps)
        return program, [
            _NormSteps(
                level, blocks(norm.channels), program.words(of_embed, "patches", "rows", "out"),
                program.words(
                    of_book, "actv", "actv_rows", "patches", "rows", "entry_rows", "entries", "windows", "form"
                ),
            )
            for (level, norm), of_embed, of_book in zip(norms, embeds, books, strict=True)
        ]  # fmt: skip

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
            embed(self._isa, norm.table, norm.shared_bias, patches, actv, relu=True, zero_row=True),
            codebook(self._isa, actv, patches, norm.weight, norm.bias, entries, form="gathered", int8=int8),
        )

    def _set(self, plans: Sequence[Sequence[Level]]) -> tuple[list[MapCodebooks], tuple[object, ...]]:
        """Points the program at the patches of maps and at memory for their entries; what it reads, besides.

        In Python's own numbers: after an image the caches hold nothing of NumPy, whose first calls are slow.
        """
        patches = [concatenate_patches(of_maps) for of_maps in zip(*plans, strict=True)]
        levels = [(three.ctypes.data, len(three), five.ctypes.data, len(five)) for three, five in patches]
        size = sum(norm.blocks * levels[norm.level][3] for norm in self._norms) * self._row_bytes
        self.cache.make_room(size)
        block = self._memory.take(size)
        actv_rows = 1 + max(rows3 for _, rows3, _, _ in levels)
        actv_bytes = -(-actv_rows * HIDDEN * self._input_dtype.itemsize // ALIGNMENT) * ALIGNMENT
        scratch = self._memory.take(ACTV_BUFFERS * actv_bytes)
        entries, at = [], block.address
        for i, norm in enumerate(self._norms):
            patches3, rows3, patches5, rows5 = levels[norm.level]
            actv, form = scratch.address + i % ACTV_BUFFERS * actv_bytes, self._form(rows5, rows3 + 1, norm.blocks)
            for word, value in zip(norm.embed, (patches3, rows3, actv), strict=True):
                self._words[word] = value
            values = (actv, rows3 + 1, patches5, rows5, rows5, at, patches3, form)
            for word, value in zip(norm.codebook, values, strict=True):
                self._words[word] = value
            entries.append(at)
            at += norm.blocks * rows5 * self._row_bytes
        return self._of_maps(plans, entries, [levels[norm.level][3] for norm in self._norms], block), (patches, scratch)

    def _form(self, rows5: int, actv_rows: int, n_blocks: int) -> int:
        """The cheaper form of a codebook."""
        forms = isa_forms(self._isa)
        form = forms[0]
        if len(forms) > 1:
            form = choose_form(self._isa, rows5, actv_rows, n_blocks=n_blocks, threads=self._pool.threads)
        return get_args(Form).index(form)

    def _plan(self, symbols: Symbols) -> list[list[Level]]:
        config = self._packed.config
        sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)
        return plan_maps(symbols, sizes, config.symbols, config.spade_kernel, self._pool)

    def _of_maps(
        self, plans: Sequence[Sequence[Level]], entries: Sequence[int], entry_rows: Sequence[int], block: Block
    ) -> list[MapCodebooks]:
        """Each map's rows of the tables, which hold the maps' patches one behind the other."""
        maps, starts = [], [0] * len(plans[0])
        for levels in plans:
            of_map = [at + starts[norm.level] * self._row_bytes for at, norm in zip(entries, self._norms, strict=True)]
            rows = [len(level.patches5) for level in levels]
            maps.append(
                MapCodebooks(
                    tuple(level.index[0] for level in levels), tuple(rows), np.array(of_map, np.uint64),
                    np.array(entry_rows, np.int64), block,
                )
            )  # fmt: skip
            starts = [start + count for start, count in zip(starts, rows, strict=True)]
        return maps
