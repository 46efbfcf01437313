"""What each kernel must move and compute on a GPU, and how long its limit lets it take.

`python -m benchmarks.gpu.roofline --labels DIR` prints the tables of docs/cuda.md, made before anything is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.common.maps import read_maps
from benchmarks.common.options import labels_option
from kernels.constants import HIDDEN
from serving.engines.cuda.weights import walk_blocks
from spade_core.codebook.plans import plan_levels
from spade_core.config import GeneratorConfig, preset
from spade_core.models.generator import Generator
from spade_core.types import Symbols

BATCH, ELEMENT = 8, 2  # maps, and bytes of a float16
MEMORY, CACHE, TENSOR_CORES = 3.35e12, 5.5e12, 989e12  # H100 SXM: bytes/s of memory and of the L2 cache, operations/s


@dataclass(frozen=True)
class Work:
    """One step.

    Attributes:
        bytes: that it must move.
        operations: additions and multiplications.
        limit: what it waits for: `memory`, `cache` (the L2) or `tensor cores`.
        share: of that limit that is expected.
    """

    name: str
    bytes: float
    operations: float
    limit: str
    share: float

    @property
    def milliseconds(self) -> float:
        """The expected time."""
        rate = {"memory": MEMORY, "cache": CACHE, "tensor cores": TENSOR_CORES}[self.limit]
        return 1e3 * (self.operations if self.limit == "tensor cores" else self.bytes) / rate / self.share


def works(config: GeneratorConfig, symbols: Symbols) -> Iterator[Work]:
    """The steps of a generator on a batch of maps, in the order in which they run."""
    levels, n = plan_levels(symbols, config), len(symbols)
    with torch.device("meta"):
        blocks = walk_blocks(Generator(config))
    positions = sum(level.index.size for level in levels)
    yield Work("plan", 40 * positions, 0, "cache", 0.3)
    embed_bytes = embed_operations = product_bytes = product_operations = 0.0
    modulated = shortcuts = conv_bytes = conv_operations = 0.0
    for block, number, shift in blocks:
        level = levels[number]
        rows3, rows5, pixels = len(level.patches3), len(level.patches5), level.index.size
        for norm in (block.norm_0, block.norm_s, block.norm_1):
            if norm is None:
                continue
            channels = norm.mlp_gamma.out_channels
            embed_bytes += rows3 * (36 + 10 * HIDDEN * ELEMENT)
            embed_operations += 9 * rows3 * HIDDEN
            # Tiles of 128 rows x 256 columns read their rows and columns from the L2 cache.
            tiles = -(-rows5 // 128) * -(-2 * channels // 256)
            product_bytes += tiles * (128 + 256) * 9 * HIDDEN * ELEMENT
            product_operations += 2 * rows5 * 9 * HIDDEN * 2 * channels
            read = pixels / 4 if shift and norm is not block.norm_1 else pixels
            modulated += (read + pixels) * channels * ELEMENT + 4 * pixels + rows5 * 2 * channels * ELEMENT
        for conv in (block.conv_0, block.conv_1, block.conv_s):
            if conv is not None:
                macs = conv.in_channels * conv.out_channels * conv.kernel_size[0] ** 2
                conv_operations += 2 * pixels * macs
                conv_bytes += (pixels * (conv.in_channels + conv.out_channels) + macs) * ELEMENT
        shortcuts += 3 * pixels * block.conv_1.out_channels * ELEMENT
    yield Work("embed", embed_bytes, embed_operations, "cache", 0.5)
    yield Work("codebook", product_bytes, product_operations, "cache", 0.9)
    yield Work("modulate_codebook", modulated, 0, "memory", 0.85)
    yield Work("convs (cuDNN)", conv_bytes, conv_operations, "tensor cores", 0.4)
    yield Work("sums of shortcuts (PyTorch)", shortcuts, 0, "memory", 0.85)
    pixels = n * config.height * config.width
    image = pixels * (1.27 * ELEMENT * config.nf + 15)
    yield Work("image", image, 54.0 * pixels * config.nf, "memory", 0.7)


# Kernels that training and other people's models use: bytes for each byte of a map, operations for each value of it.
_DROP_IN = (
    ("modulate_codebook_backward", 4, 15),
    ("modulate_dense, statistics given", 4, 5),
    ("modulate_dense, statistics of the batch", 5, 5),
    ("modulate_dense backward", 7, 9),
    ("modulate_dense backward, through the statistics", 12, 18),
    ("norm", 1, 5),
    ("norm backward", 5, 9),
)


def drop_in_works(config: GeneratorConfig, maps: int) -> Iterator[Work]:
    """Each kernel outside the engine, on the maps of all norms of a generator, once for each norm."""
    with torch.device("meta"):
        blocks = walk_blocks(Generator(config))
    values = positions = 0
    for block, number, _ in blocks:
        height, width = config.level_sizes[number]
        size = maps * height * width
        for norm in (block.norm_0, block.norm_s, block.norm_1):
            if norm is not None:
                values += size * norm.mlp_gamma.out_channels
                positions += size
    for name, moved, operations in _DROP_IN:
        index = 16 * positions if name.startswith("modulate_codebook") else 0
        yield Work(name, moved * values * ELEMENT + index, operations * values, "memory", 0.85)


def show(title: str, rows: Iterable[Work]) -> float:
    """Print a table with an empty column for what is measured; returns the expected milliseconds of all rows."""
    click.echo(
        f"| {title} | MB | G operations | limit | expected share | expected ms | measured ms |\n" + "|---" * 7 + "|"
    )
    total = 0.0
    for work in rows:
        total += work.milliseconds
        click.echo(
            f"| {work.name} | {work.bytes / 1e6:,.0f} | {work.operations / 1e9:,.1f} | {work.limit} | {work.share:.0%} "
            f"| {work.milliseconds:.2f} | |"
        )
    return total


@click.command()
@labels_option()
def main(labels: Path | None) -> None:
    """Print the bytes, operations and expected milliseconds of each kernel for eight maps on an H100."""
    config = preset("coco")
    maps = read_maps(config, labels, count=BATCH)
    total = show("step", works(config, maps.symbols[np.arange(BATCH) % len(maps.symbols)].astype(np.uint16)))
    click.echo(f"| all | | | | | {total:.2f} | |\n")
    show("kernel", drop_in_works(config, BATCH))


if __name__ == "__main__":
    main()
