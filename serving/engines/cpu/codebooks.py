"""Makes the plans and codebooks of label maps, once per distinct map."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from kernels.program import Pool, Program, Step
from serving.engines.cpu.memory import ALIGNMENT, Arena, Block
from serving.engines.cpu.pack import PackedGenerator, PackedNorm
from serving.engines.map_cache import MapCache, MapKey
from serving.engines.timings import Timings
from spade_core.config import level_sizes
from spade_core.types import Int32, Symbols

Positions = npt.NDArray[np.int64]

ACTV_BUFFERS = 3  # buffers of hidden rows; norms use them in turn


@dataclass(frozen=True, eq=False)
class MapCodebooks:
    """What the convs need of one label map.

    Attributes:
        index: int32 [h, w] for each level: rows of the level's entries.
        rows: U5 for each level, the number of distinct 5x5 patches.
        entries: uint64 [norms], in the order of the blocks and their norms: the address of the map's entries
            T [CB, U5, 2, 32]. The entries are rows of a table that all maps of a batch share.
        entry_rows: int64 [norms]: rows of each whole table.
        memory: the block that holds the tables.
    """

    index: tuple[Int32, ...]
    rows: tuple[int, ...]
    entries: npt.NDArray[np.uint64]
    entry_rows: Positions
    memory: Block

    @property
    def pixels(self) -> int:
        """Pixels of all levels together."""
        return sum(index.size for index in self.index)


@dataclass(frozen=True, eq=False)
class Planned:
    """Label maps whose codebooks have their place in memory.

    Attributes:
        maps: the codebooks of each image's map.
        new: the maps whose entries `CodebookMaker.make` has yet to compute, by key.
        scratch: the memory that computing the entries reads, kept alive.
    """

    maps: Sequence[MapCodebooks]
    new: Mapping[MapKey, MapCodebooks]
    scratch: tuple[object, ...] = ()


@dataclass(frozen=True)
class _NormSteps:
    """The steps of one norm in the program.

    Attributes:
        level: resolution level of the norm.
        blocks: blocks of 32 channels.
        embed, codebook: positions of the steps' arguments in the program's memory; `CodebookMaker._set` writes them.
    """

    level: int
    blocks: int
    embed: list[int]
    codebook: list[int]


class CodebookMaker:
    """Makes the codebooks of label maps. One program serves every call; each call sets the program's arguments.

    Args:
        packed, isa: the norms' weights, and the ISA that the weights are packed for.
        pool: threads that plan maps and run the program.
        cache: codebooks of earlier calls.
    """

    def __init__(self, packed: PackedGenerator, isa: Isa, pool: Pool, cache: MapCache[MapCodebooks]) -> None:
        self._packed, self._isa, self._pool, self.cache = packed, isa, pool, cache
        self._dtype, self._input_dtype = storage_dtype(isa_dtype(isa)), storage_dtype(input_dtype(isa))
        self._row_bytes = 2 * BLOCK * self._dtype.itemsize  # bytes of one entry in one block of channels
        self._memory = Arena()
        self._program, self._norms = self._write_program()
        self._words = self._program.memory.data.cast("q")

    def plan(self, symbols: Symbols, keys: Sequence[MapKey], timings: Timings) -> Planned:
        """Plan the maps of symbols [N, H, W] that the cache does not hold; equal maps are planned once.

        `make` must run before the next call of `plan`, which overwrites the program's arguments.
        """
        lookup = self.cache.look_up(keys)
        timings.cached_maps += lookup.hits
        if not lookup.missing:
            return Planned(lookup.complete({}), {})
        began = time.perf_counter()
        planned, scratch = self._set(self._plan(lookup.missing_maps(symbols)))
        new = dict(zip(lookup.missing, planned, strict=True))
        timings.plan_s += time.perf_counter() - began
        return Planned(lookup.complete(new), new, scratch)

    def make(self, planned: Planned, timings: Timings) -> None:
        """Compute the entries that the last call of `plan` found missing, and put them into the cache."""
        if not planned.new:
            return
        timings.codebook_s += sum(self._pool.run(self._program).values())
        self.cache.put(planned.new)

    def _write_program(self) -> tuple[Program, list[_NormSteps]]:
        """The program, and the positions of each norm's arguments in the program's memory.

        The embed of a norm stands before the codebook of the previous norm, so that both may run together. A codebook
        waits for its embed; an embed waits for the codebook that last read the embed's buffer.
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
        """The steps of a norm on a single patch, which check the shapes once. `_set` points the steps at real maps."""
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
        """Point the program at the patches of maps, and at memory for their entries.

        Returns the codebooks of each map, and the memory that the program reads, to be kept alive until the program has
        run. Computes in plain Python numbers: after an image the processor's caches hold none of NumPy's code, so the
        first calls of NumPy are slow.
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
        """Number of the faster form of a codebook."""
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
        """Each map's rows in the tables, where the entries of the maps lie one map after the other."""
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
