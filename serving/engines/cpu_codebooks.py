"""Plans and codebooks of label maps, computed once per distinct map and kept for maps that come again."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.codebook import choose_form
from kernels.layouts import BLOCK, Array, aligned_empty, blocks, storage_dtype
from kernels.plan import Level, plan
from kernels.steps import Pool, Program, Step, Tier, codebook, embed, run, tier_dtype
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

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in (*self.index, *self.entries))


@dataclass
class CodebookTimes:
    """Seconds of one call, and how many of its maps were at hand."""

    plan_s: float = 0.0
    codebook_s: float = 0.0
    cached: int = 0


class CodebookCache:
    """The most recently used maps' codebooks, at most `limit` bytes of them; 0 keeps none. Not thread-safe.

    Maps of one batch share memory, which is used again when the last of them is gone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.memory = Recycler()
        self.bytes = 0
        self._maps: OrderedDict[bytes, MapCodebooks] = OrderedDict()

    def get(self, key: bytes) -> MapCodebooks | None:
        found = self._maps.get(key)
        if found is not None:
            self._maps.move_to_end(key)
        return found

    def put(self, key: bytes, codebooks: MapCodebooks) -> None:
        if codebooks.bytes > self.limit:
            return
        self._maps[key] = codebooks
        self.bytes += codebooks.bytes
        while self.bytes > self.limit:
            self.bytes -= self._maps.popitem(last=False)[1].bytes


def codebooks_of(
    symbols: Symbols, packed: PackedGenerator, tier: Tier, pool: Pool, cache: CodebookCache, times: CodebookTimes
) -> list[MapCodebooks]:
    """The codebooks of each map of symbols [N, H, W]; equal maps, and maps in the cache, are computed once."""
    keys = [_key(one) for one in symbols]
    found = {key: codebooks for key in keys if (codebooks := cache.get(key)) is not None}
    times.cached += sum(key in found for key in keys)
    missing = list(dict.fromkeys(key for key in keys if key not in found))
    if missing:
        maps = np.stack([symbols[keys.index(key)] for key in missing])
        for key, codebooks in zip(missing, _compute(maps, packed, tier, pool, cache.memory, times), strict=True):
            found[key] = codebooks
            cache.put(key, codebooks)
    return [found[key] for key in keys]


def _key(symbols: Symbols) -> bytes:
    digest = hashlib.blake2b(repr(symbols.shape).encode(), digest_size=16)
    digest.update(symbols.tobytes())
    return digest.digest()


def _compute(
    symbols: Symbols, packed: PackedGenerator, tier: Tier, pool: Pool, memory: Recycler, times: CodebookTimes
) -> list[MapCodebooks]:
    began = time.perf_counter()
    config = packed.config
    sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)
    levels = plan(symbols, sizes, config.symbols, config.spade_kernel)
    planned = time.perf_counter()
    dtype = storage_dtype(tier_dtype(tier))
    norms = [(block.level, norm) for block in packed.blocks for norm in block.norms]
    shapes = [(blocks(norm.channels), len(levels[level].patches5), 2, BLOCK) for level, norm in norms]
    block = memory.take(sum(math.prod(shape) for shape in shapes) * dtype.itemsize)
    tables = block.arrays(shapes, dtype)
    actv = aligned_empty((max(len(level.patches3) for level in levels) + 1, HIDDEN), dtype)
    steps: list[Step] = []
    for (number, norm), table in zip(norms, tables, strict=True):
        level = levels[number]
        steps += _norm_steps(norm, level, actv[: len(level.patches3) + 1], table, tier, pool.threads)
    run(Program(steps), pool)
    times.plan_s += planned - began
    times.codebook_s += time.perf_counter() - planned
    of_level = [(number, table) for (number, _), table in zip(norms, tables, strict=True)]
    return [_of_map(i, levels, of_level, block) for i in range(len(symbols))]


def _norm_steps(
    norm: PackedNorm, level: Level, actv: Array, entries: Array, tier: Tier, threads: int
) -> Sequence[Step]:
    form = choose_form(tier, len(level.patches5), len(actv), n_blocks=len(entries), threads=threads)
    return (
        embed(tier, norm.table, norm.shared_bias, level.patches3, actv, relu=True, zero_row=True),
        codebook(tier, actv, level.patches5, norm.weight, norm.bias, entries, form=form),
    )


def _of_map(i: int, levels: Sequence[Level], tables: Sequence[tuple[int, Array]], block: Block) -> MapCodebooks:
    bounds = [(int(level.patches5_offsets[i]), int(level.patches5_offsets[i + 1])) for level in levels]
    return MapCodebooks(
        tuple(level.index[i] - np.int32(start) for level, (start, _) in zip(levels, bounds, strict=True)),
        tuple(stop - start for start, stop in bounds),
        tuple(table[:, slice(*bounds[level])] for level, table in tables),
        block,
    )
