"""The cost of an image against the batch, the size, and the share of distinct patches.

    python -m benchmarks.model.scaling --preset coco --labels DIR --precision bf16 --json out.json

The peer is the dense form in PyTorch, with the same precision and threads, measured right after each point.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.maps import read_maps
from benchmarks.common.options import json_option, labels_option, preset_option
from benchmarks.common.report import write_report
from serving.engines.cpu.engine import CpuEngine
from serving.engines.reference import Precision, TorchEngine
from serving.engines.timings import Timings
from spade_core.config import PRESETS, preset
from spade_core.maps.label_maps import resize_nearest_centred
from spade_core.models.seeded import seeded_generator
from spade_core.types import Labels


@dataclass(frozen=True)
class Point:
    """One measured point. Seconds are per image; `distinct_share` is over all levels."""

    axis: str
    value: float
    distinct_share: float
    seconds: float
    dense_seconds: float | None


def per_image(engine: Any, labels: Labels, instances: Any, repeats: int, timings: Timings | None = None) -> float:
    """Median seconds per image, after one untimed call."""
    engine.synthesize(labels, instances, None, timings)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        engine.synthesize(labels, instances, None)
        seconds.append((time.perf_counter() - began) / len(labels))
    return statistics.median(seconds)


def noisy(labels: Labels, share: float, classes: int) -> Labels:
    """Replace this share of the pixels by random labels."""
    rng = np.random.default_rng(0)
    random = rng.integers(0, classes, labels.shape, dtype=np.uint8)
    return np.where(rng.random(labels.shape) < share, random, labels)


@click.command()
@preset_option(
    "coco",
    "Architecture without a style input, whose size is not fixed.",
    [name for name, config in PRESETS.items() if not config.style],
)
@labels_option()
@click.option("--precision", type=click.Choice(("fp32", "bf16", "int8")), default="bf16", show_default=True,
              help="Precision of both; the peer of int8 runs in bf16.")  # fmt: skip
@click.option("--batches", default="1,2,4,8,16,32", show_default=True, help="Batch sizes.")
@click.option("--sizes", default="128,256,512,1024", show_default=True, help="Heights of square maps.")
@click.option("--noise", default="0,0.01,0.1,1", show_default=True, help="Shares of pixels with a random label.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Timed calls of each point.")
@json_option()
def main(
    preset_name: str, labels: Path | None, precision: str, batches: str, sizes: str, noise: str, repeats: int,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Measure the cpu engine's cost of an image along three axes, each beside the dense form."""
    config = preset(preset_name)
    threads = len(os.sched_getaffinity(0))
    maps = read_maps(config, labels)
    ours = CpuEngine(seeded_generator(config), precision, threads, cache_bytes=0)
    of_dense: Precision = "fp32" if precision == "fp32" else "bf16"
    dense = TorchEngine(seeded_generator(config), of_dense, "dense", threads=threads)
    points: list[Point] = []

    def measure(axis: str, value: float, of: Labels, with_peer: bool = True) -> None:
        instances = of.astype(np.int32) if config.instance_edges else None
        timings = Timings()
        seconds = per_image(ours, of, instances, repeats, timings)
        peer = per_image(dense, of, instances, repeats) if with_peer else None
        points.append(Point(axis, value, timings.distinct_share, seconds, peer))

    for batch in map(int, batches.split(",")):
        # Shifted copies of the maps: all distinct, with the same statistics except at the seam.
        many = [np.roll(maps.labels, 8 * turn, axis=2) for turn in range(-(-batch // len(maps.labels)))]
        measure("batch", batch, np.concatenate(many)[:batch], with_peer=batch <= 8)
    for size in map(int, sizes.split(",")):
        measure("size", size, resize_nearest_centred(maps.labels[:1], size, size), with_peer=size <= 512)
    for share in map(float, noise.split(",")):
        measure("noise", share, noisy(maps.labels[:1], share, config.label_nc))

    table = Table("axis", "value", "distinct", "ms an image", "dense ms", "x", title=f"{preset_name}, {precision}")
    for p in points:
        peer = (
            ("", "")
            if p.dense_seconds is None
            else (f"{p.dense_seconds * 1e3:.0f}", f"{p.dense_seconds / p.seconds:.2f}")
        )
        table.add_row(p.axis, f"{p.value:g}", f"{p.distinct_share:.1%}", f"{p.seconds * 1e3:.0f}", *peer)
    console().print(table)
    if json_path:
        report = {"preset": preset_name, "precision": precision, "points": [asdict(p) for p in points]}
        write_report(json_path, report)


if __name__ == "__main__":
    main()
