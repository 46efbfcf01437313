"""The cost of a stroke in a session of the cpu engine, against drawing the map anew.

    python -m benchmarks.editing --preset coco --labels DIR --json out.json

Each row is printed and written as soon as it is measured. The same command again measures only what the file lacks.

Three ways take turns on each stroke: the session; the same engine without a session, which knows the other patches of
the map; and an engine that keeps nothing, as if nobody had drawn the map before. The images must be equal, bit for bit.
The dense form in PyTorch is the way of the published code: it draws every map from scratch.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import track
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import json_option, labels_option, names_of, numbers, preset_option
from benchmarks.common.report import machine, write_report
from benchmarks.editing.counts import conv_share
from benchmarks.editing.strokes import LENGTHS, Edit, edits, scaled
from serving.engines.contract import Session, check_inputs
from serving.engines.cpu.engine import CpuEngine
from serving.engines.reference import TorchEngine
from spade_core.config import GeneratorConfig, preset
from spade_core.models.seeded import seeded_generator

SESSION_BYTES = 4 << 30  # room for 1024x1024 in fp32
_RADII = [str(radius) for radius in LENGTHS]


@dataclass(frozen=True)
class Row:
    """Strokes of one size at one image size. Seconds and ratios are medians over the strokes.

    Attributes:
        image_share: share of the image that a stroke reached, mean.
        conv_share: share of the convs' multiply-adds that a stroke makes the session redo, median; counted.
        session_s, same_engine_s, anew_s: the three ways of drawing the edited map.
        ratio, ratio_min, ratio_max: time of drawing anew over time of the session, of the same stroke.
    """

    size: int
    radius: int
    length: int
    strokes: int
    image_share: float
    conv_share: float
    session_s: float
    same_engine_s: float
    anew_s: float
    ratio: float
    ratio_min: float
    ratio_max: float


@dataclass
class Times:
    """Seconds of each stroke, by way, and the shares of the image and of the convs that the strokes reached."""

    session: list[float] = field(default_factory=list)
    same_engine: list[float] = field(default_factory=list)
    anew: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    conv_shares: list[float] = field(default_factory=list)

    def row(self, size: int, radius: int, length: int) -> Row:
        """The medians."""
        ratios = [anew / session for anew, session in zip(self.anew, self.session, strict=True)]
        return Row(
            size, radius, length, len(ratios), statistics.mean(self.shares), statistics.median(self.conv_shares),
            statistics.median(self.session), statistics.median(self.same_engine), statistics.median(self.anew),
            statistics.median(ratios), min(ratios), max(ratios),
        )  # fmt: skip


def draw_stroke(edit: Edit, session: Session, engine: CpuEngine, alone: CpuEngine, times: Times) -> None:
    """Draw a stroke in the three ways. Raises RuntimeError where the images differ."""
    config = engine.config
    session.draw(check_inputs(*edit.before, None, config))
    began = time.perf_counter()
    image, changed = session.draw(check_inputs(*edit.after, None, config))
    times.session.append(time.perf_counter() - began)
    began = time.perf_counter()
    expected = alone.synthesize(*edit.after, None)[0]
    times.anew.append(time.perf_counter() - began)
    began = time.perf_counter()
    again = engine.synthesize(*edit.after, None)[0]
    times.same_engine.append(time.perf_counter() - began)
    times.shares.append(changed.area / image[..., 0].size)
    times.conv_shares.append(conv_share(edit, config))
    if not np.array_equal(image, expected) or not np.array_equal(again, expected):
        raise RuntimeError("[editing] expected the same bits from a session and from drawing anew but they differ")


@dataclass(frozen=True)
class Setting:
    """What all rows of a report share; a file of another setting is not added to."""

    preset: str
    precision: str
    labels: str
    strokes: int


class Results:
    """The rows of one setting, on the screen and in a file, one by one.

    Args:
        path: of the report, which may hold rows of the same setting already; None writes none.

    Raises UsageError where the file's rows are of another setting or machine.
    """

    def __init__(self, setting: Setting, path: Path | None) -> None:
        self.setting, self._path = setting, path
        self._report: dict[str, Any] = asdict(setting) | {"rows": []}
        if path is not None and path.exists():
            old = json.loads(path.read_text())
            mine = asdict(setting) | {"cpu": machine()["cpu"]}
            theirs = {name: old.get(name) for name in asdict(setting)} | {"cpu": old.get("machine", {}).get("cpu")}
            if theirs != mine:
                raise click.UsageError(f"--json: expected a report of {mine} but got {theirs}; name another file")
            self._report = {name: value for name, value in old.items() if name != "machine"}

    @property
    def rows(self) -> list[Row]:
        """All rows, those of an earlier run too."""
        return [Row(**row) for row in self._report["rows"]]

    def has(self, size: int, radius: int) -> bool:
        """Whether the row of this image size and radius is measured."""
        return any((row.size, row.radius) == (size, radius) for row in self.rows)

    def add(self, row: Row) -> None:
        """Print a row, and write the report."""
        console().print(
            f"{row.size}x{row.size}, radius {row.radius}: session {row.session_s * 1e3:.0f} ms, anew "
            f"{row.anew_s * 1e3:.0f} ms, {row.ratio:.1f}x; by count {1 / max(row.conv_share, 1e-9):.1f}x"
        )
        self._report["rows"] = [
            asdict(one) for one in sorted([*self.rows, row], key=lambda one: (one.size, one.radius))
        ]
        self.write()

    def write(self, **more: object) -> None:
        """Write the report, with further fields."""
        self._report |= more
        if self._path:
            write_report(self._path, self._report)


def measure(config: GeneratorConfig, precision: str, labels: Path | None, radii: Sequence[int], out: Results) -> None:
    """Add the rows of radii that `out` lacks, at the configuration's image size."""
    size, lacking = config.height, [radius for radius in radii if not out.has(config.height, radius)]
    if not lacking:
        return
    generator, threads = seeded_generator(config), len(os.sched_getaffinity(0))
    engine = CpuEngine(generator, precision, threads, session_bytes=SESSION_BYTES)
    alone = CpuEngine(generator, precision, threads, cache_bytes=0)
    maps, session, strokes = scaled(read_maps(config, labels), size), engine.session(), out.setting.strokes
    for radius in lacking:
        length, times = LENGTHS[radius], Times()
        of_size = islice(edits(maps, radius, length, config, seed=size + radius), strokes + 1)
        for number, edit in enumerate(track(of_size, f"{size}x{size}, radius {radius}", total=strokes + 1)):
            # The first stroke plans memory.
            draw_stroke(edit, session, engine, alone, times if number else Times())
        out.add(times.row(size, radius, length))


def reference_seconds(config: GeneratorConfig, precision: str, labels: Path | None, repeats: int) -> float:
    """Median seconds of the dense form in PyTorch."""
    threads = len(os.sched_getaffinity(0))
    peer = TorchEngine(seeded_generator(config), precision, "dense", threads=threads)  # type: ignore[arg-type]
    maps, seconds = scaled(read_maps(config, labels), config.height), []
    for number in range(repeats + 1):
        began = time.perf_counter()
        peer.synthesize(*maps[number % len(maps)], None)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def table(rows: Sequence[Row], title: str) -> Table:
    """The rows as a table, times in ms."""
    out = Table(
        "image", "radius, length", "share reached", "convs redone", "session", "same engine, no session", "anew",
        "anew / session", "min..max", title=title,
    )  # fmt: skip
    for row in rows:
        out.add_row(
            f"{row.size}x{row.size}", f"{row.radius}, {row.length}", f"{row.image_share:.0%}",
            f"{row.conv_share:.1%}", f"{row.session_s * 1e3:.0f}", f"{row.same_engine_s * 1e3:.0f}",
            f"{row.anew_s * 1e3:.0f}",
            f"{row.ratio:.1f}x", f"{row.ratio_min:.1f}..{row.ratio_max:.1f}",
        )  # fmt: skip
    return out


@click.command()
@preset_option("coco", names=("coco", "ade20k"))
@labels_option()
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True, help="Precision.")
@click.option("--sizes", default="256,512,1024", show_default=True, callback=numbers(int), help="Image sizes.")
@click.option("--radii", default=",".join(_RADII), show_default=True, callback=names_of(_RADII),
              help="Radii of strokes, pixels.")  # fmt: skip
@click.option("--strokes", default=16, show_default=True, type=click.IntRange(1), help="Strokes of each size.")
@click.option("--reference", default=0, show_default=True, type=click.IntRange(0),
              help="Maps that the dense form in PyTorch draws at each image size; 0 leaves it out.")  # fmt: skip
@json_option()
def main(
    preset_name: str, labels: Path | None, precision: str, sizes: tuple[int, ...], radii: tuple[str, ...], strokes: int,
    reference: int, json_path: Path | None,
) -> None:  # fmt: skip
    """Measure what a stroke costs in a session of the cpu engine. Adds to a report of an earlier run."""
    out = Results(Setting(preset_name, precision, labels_name(labels), strokes), json_path)
    configs = [replace(preset(preset_name), height=size, width=size) for size in sizes]
    for config in configs:
        measure(config, precision, labels, [int(radius) for radius in radii], out)
    console().print(table(out.rows, f"{preset_name}, {precision}, ms"))
    if reference:
        dense = {config.height: reference_seconds(config, precision, labels, reference) for config in configs}
        console().print("dense, PyTorch: " + ", ".join(f"{size}: {seconds:.2f} s" for size, seconds in dense.items()))
        out.write(dense_pytorch_s=dense)
