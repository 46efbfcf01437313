"""Codebooks on the device: memory at fixed addresses for each bucket of patch counts, and copies kept for each map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.constants import HIDDEN
from kernels.cuda.codebook.codebook import Codebook, DeviceRows, Embed, codebook, embed
from kernels.cuda.host.library import Library
from kernels.cuda.plan.plan import CudaPlan, prefix_sums
from serving.engines.cuda.weights import CudaNorm, CudaWeights
from spade_core.config import level_sizes

Shape = tuple[int, int, int]  # N, H, W


def bucket_of(rows: Sequence[int], sizes: Sequence[tuple[int, int]], n: int) -> int:
    """The smallest bucket with room for `rows` distinct patches at each level of n images.

    Distinct patches lie along the borders of regions, so their number grows with the side of a level. Bucket b has room
    for b * n * (h + w) / 2 rows at each level, at most one for each pixel. Buckets are 8, 12, 16, 24, 32, 48, ..
    """
    bucket = 8
    while any(count > room_of(bucket, size, n) for count, size in zip(rows, sizes, strict=True)):
        bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 else bucket * 4 // 3
    return bucket


def room_of(bucket: int, size: tuple[int, int], n: int) -> int:
    """The rows that a bucket has at a level of n images."""
    height, width = size
    return min(n * height * width, bucket * n * (height + width) // 2)


class Codebooks:
    """The entries of all norms of a batch in one bucket, at fixed addresses, and the steps that fill them.

    Attributes:
        entries: T [rows, 2C] of each norm, in the order of the blocks and their norms; views of `flat`.
    """

    def __init__(self, weights: CudaWeights, plan: CudaPlan, bucket: int, library: Library) -> None:
        self._plan, self._library = plan, library
        self._rooms = [room_of(bucket, size, plan.n) for size in plan.sizes]
        taps = weights.config.spade_kernel**2
        starts = prefix_sums(self._rooms)
        # Zeros, so that rows that no plan has written yet name a row that exists.
        self._patches3, self._patches5 = torch.zeros((2, starts[-1], taps), dtype=torch.int32, device=weights.device)
        self._starts = starts[:-1]
        norms = [(norm, block.level) for block in weights.blocks for norm in block.norms]
        sizes = [self._rooms[level] * 2 * norm.channels for norm, level in norms]
        # The entries of each norm begin at a multiple of 16 bytes.
        bounds = prefix_sums([-(-size // 8) * 8 for size in sizes])
        self.flat = torch.empty(bounds[-1], dtype=weights.dtype, device=weights.device)
        self.entries = [
            self.flat[start : start + size].view(-1, 2 * norm.channels)
            for start, size, (norm, _) in zip(bounds, sizes, norms, strict=False)
        ]
        pairs = [
            self._problems(norm, level, entries) for (norm, level), entries in zip(norms, self.entries, strict=True)
        ]
        self._embeds, self._codebooks = [embed for embed, _ in pairs], [codebook for _, codebook in pairs]

    def _problems(self, norm: CudaNorm, level: int, entries: Tensor) -> tuple[Embed, Codebook]:
        plan, n, room = self._plan, self._plan.n, self._rooms[level]
        begin, end = level * n, (level + 1) * n
        rows3 = DeviceRows(plan.offsets3[begin : begin + 1], plan.offsets3[end : end + 1])
        rows5 = DeviceRows(plan.offsets5[begin : begin + 1], plan.offsets5[end : end + 1])
        table = slice(self._starts[level], self._starts[level] + room)
        actv = torch.empty((room + 1, HIDDEN), dtype=entries.dtype, device=entries.device)
        return (
            Embed(norm.table, norm.shared_bias, self._patches3[table], actv, relu=True, zero_row=True, rows=rows3),
            Codebook(actv, self._patches5[table], norm.weight, norm.bias, entries, rows=rows5),
        )

    def compute(self) -> None:
        """Write the tables of the plan after `plan.find`, then run embed and codebook for all norms. Does not wait."""
        self._plan.write(self._patches3, self._starts, self._rooms, self._patches5, self._starts, self._rooms)
        embed(*self._embeds, library=self._library)
        codebook(*self._codebooks, library=self._library)


@dataclass(frozen=True, eq=False)
class BatchMemory:
    """The device memory that the codebooks of one batch share; freed with the last of the batch's maps."""

    bytes: int


@dataclass(frozen=True, eq=False)
class MapCodebooks:
    """What the convs need of one label map.

    Attributes:
        index: int32 [h, w] for each level; the map's own rows count from 0.
        entries: T [U5, 2C] for each norm.
        rows: U5 for each level.
        memory: the memory shared with the other maps of the batch.
    """

    index: tuple[Tensor, ...]
    entries: tuple[Tensor, ...]
    rows: tuple[int, ...]
    memory: BatchMemory

    @property
    def pixels(self) -> int:
        """Pixels of all levels together."""
        return sum(index.numel() for index in self.index)


def keep_maps(
    codebooks: Codebooks, plan: CudaPlan, offsets5: Sequence[int], weights: CudaWeights
) -> list[MapCodebooks]:
    """Copies of a batch's codebooks, one for each map, of the used rows only. `offsets5` is the plan's, on the host."""
    n, levels = plan.n, range(len(plan.sizes))
    first = [[offsets5[level * n + i] - offsets5[level * n] for i in range(n + 1)] for level in levels]
    index = [plan.level_index(level).clone() for level in levels]
    level_of = [block.level for block in weights.blocks for _ in block.norms]
    entries = [
        entries[: first[level][n]].clone() for entries, level in zip(codebooks.entries, level_of, strict=True)
    ]  # fmt: skip
    memory = BatchMemory(sum(t.numel() * t.element_size() for t in (*entries, *index)))
    maps = []
    for i in range(n):
        own = tuple(e[first[level][i] : first[level][i + 1]] for e, level in zip(entries, level_of, strict=True))
        indices = tuple(index[level][i] - first[level][i] for level in levels)
        rows = tuple(first[level][i + 1] - first[level][i] for level in levels)
        maps.append(MapCodebooks(indices, own, rows, memory))
    return maps


def place_maps(maps: Sequence[MapCodebooks], codebooks: Codebooks, plan: CudaPlan, weights: CudaWeights) -> None:
    """Copy kept codebooks, one for each image, into a batch's memory. A map that repeats is copied once."""
    distinct = list({id(one): one for one in maps}.values())
    position = {id(one): i for i, one in enumerate(distinct)}
    starts = [prefix_sums([one.rows[level] for one in distinct]) for level in range(len(plan.sizes))]
    for level, own in enumerate(starts):
        index = plan.level_index(level)
        for i, one in enumerate(maps):
            torch.add(one.index[level], own[position[id(one)]], out=index[i])
    level_of = [block.level for block in weights.blocks for _ in block.norms]
    for k, (entries, level) in enumerate(zip(codebooks.entries, level_of, strict=True)):
        torch.cat([one.entries[k] for one in distinct], out=entries[: starts[level][-1]])


def make_plan(weights: CudaWeights, shape: Shape, library: Library) -> CudaPlan:
    """Memory for plans of batches of a shape."""
    config = weights.config
    sizes = level_sizes(shape[1], shape[2], config.upsamplings)
    return CudaPlan(shape, sizes, config.symbols, config.spade_kernel, weights.device, library)
