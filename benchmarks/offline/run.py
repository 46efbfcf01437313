"""The throughput of `spade synthesize --ray` beside the same painters in plain processes, in turn.

    python -m benchmarks.offline --preset coco --labels DIR --json out.json

Both draw the same maps with the same number of processes and threads, and write the same files.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.progress import track
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import json_option, labels_option, preset_option, weights_option
from benchmarks.common.report import write_report
from benchmarks.common.stream import inputs_of
from benchmarks.model.other_maps import write_map
from benchmarks.offline.plain import Finished, draw_in_processes
from serving.cli.options import COUNT, option, options
from serving.engines.choose import choose
from serving.offline.drawings import Batch, Recipe, batches
from serving.offline.painter import Setting
from serving.offline.pool import connect, draw_on_ray
from serving.offline.run import Run
from serving.offline.sources import find_items
from spade_core.config import GeneratorConfig


@dataclass(frozen=True)
class Row:
    """One way to fill the cores. Images a second and core are medians over the rounds; `share` is of neighbours."""

    processes: int
    threads: int
    plain_per_core: float
    ray_per_core: float
    share: float
    share_min: float
    share_max: float


@dataclass(frozen=True)
class Work:
    """What is drawn: the batches, and how."""

    parts: Sequence[Batch]
    setting: Setting
    recipe: Recipe


def _ways(_context: click.Context, option: click.Parameter, text: str | None) -> list[tuple[int, int]]:
    """`2x1` -> [(2, 1)]: processes and threads of each."""
    cores = len(os.sched_getaffinity(0))
    if text is None:
        return sorted({(1, 1), (1, cores), (cores, 1)})
    found = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", part) for part in text.split(",")]
    ways = [(int(match[1]), int(match[2])) for match in found if match]
    if len(ways) < len(found) or any(processes * threads > cores for processes, threads in ways):
        raise click.BadParameter(
            f"expected processes x threads, of at most {cores} cores, such as 1x1,{cores}x1 but got {text!r}",
            param=option,
        )
    return ways


@dataclass(frozen=True)
class Turns:
    """What is drawn in a turn, how often, and by whom."""

    images: int = option(
        "--images", type=click.IntRange(8), default=256, show_default=True, help="Images of each turn."
    )  # fmt: skip
    batch: int = option("--batch", type=COUNT, default=8, show_default=True, help="Images of a batch.")
    rounds: int = option("--rounds", type=COUNT, default=5, show_default=True, help="Turns of each.")
    ways: list[tuple[int, int]] = option(
        "--ways", callback=_ways, metavar="NxM[,NxM..]",
        help="Ways to fill the cores, as processes x threads of each.  [default: one process of one thread, one of all "
        "cores, and as many processes as cores]",
    )  # fmt: skip


@click.command()
@preset_option("demo", "Architecture of the seeded weights.")
@weights_option()
@labels_option()
@click.option("--precision", default="auto", show_default=True, help="Precision of the engine.")
@options(Turns, "turns")
@json_option()
def main(
    preset_name: str, weights: Path | None, labels: Path | None, precision: str, turns: Turns, json_path: Path | None
) -> None:
    """Measure what Ray costs: images a second and core, beside plain processes."""
    import ray

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "images")
        setting = Setting(weights, preset_name, choose("auto", precision), 1, None, "png", out)
        engine, recipe = setting.start()
        write_maps(Path(folder, "maps"), engine.config, labels, turns.images)
        inst = Path(folder, "maps", "inst") if engine.config.instance_edges else None
        items = find_items([Path(folder, "maps", "label")], inst, out)
        missing = Run(items, range(1) if engine.config.style else None, recipe, out).missing
        del engine
        connect("local")
        try:
            work = Work(batches(missing, turns.batch), setting, recipe)
            rows = [measure(work, *way, turns.rounds) for way in track(turns.ways, "ways")]
        finally:
            ray.shutdown()
    show(rows, f"{preset_name}, {recipe.precision}, batches of {turns.batch}")
    if json_path is not None:
        report: dict[str, Any] = {"preset": preset_name, "precision": recipe.precision, "labels": labels_name(labels)}
        report |= {"images": turns.images, "batch": turns.batch, "rounds": turns.rounds}
        report |= {"rows": [asdict(row) for row in rows]}
        write_report(json_path, report)


def write_maps(folder: Path, config: GeneratorConfig, labels: Path | None, count: int) -> None:
    """`count` maps as files, of which none comes twice."""
    maps = read_maps(config, labels)
    for number in range(count):
        one, instances, _ = inputs_of(maps, number, 1)
        write_map(folder, f"{number:06d}", one[0], (one if instances is None else instances)[0].astype("int32"))


def measure(work: Work, processes: int, threads: int, rounds: int) -> Row:
    """Plain processes and Ray's actors in turn."""
    setting = replace(work.setting, threads=threads)
    plain: list[float] = []
    with_ray: list[float] = []
    for _ in range(rounds):
        for draw, rates in ((_plain, plain), (_ray, with_ray)):
            with tempfile.TemporaryDirectory() as folder:
                finished = draw(replace(work, setting=replace(setting, out=Path(folder))), processes)
            rates.append(steady_rate(finished, processes) / (processes * threads))
    shares = [one / other for one, other in zip(with_ray, plain, strict=True)]
    return Row(
        processes, threads, statistics.median(plain), statistics.median(with_ray), statistics.median(shares),
        min(shares), max(shares),
    )  # fmt: skip


def _plain(work: Work, processes: int) -> list[Finished]:
    return draw_in_processes(work.parts, work.setting, work.recipe, processes)


def _ray(work: Work, processes: int) -> list[Finished]:
    finished: list[Finished] = []

    def report(batch: Batch, failed: dict[str, str], who: Any) -> None:
        if failed:
            raise click.ClickException(f"[offline] expected every map to be drawn but {failed}")
        finished.append(Finished(time.monotonic(), who, len(batch)))

    draw_on_ray(work.parts, work.setting, work.recipe, processes, report)
    return finished


def steady_rate(finished: Sequence[Finished], workers: int) -> float:
    """Images a second while every worker draws: from the latest first report to the earliest last one.

    Starts of engines, and the end, at which some workers have nothing left, are no throughput. Raises ClickException
    for a turn that is too short.
    """
    reports: dict[Any, list[float]] = defaultdict(list)
    for one in finished:
        reports[one.who].append(one.at_s)
    began = max(times[0] for times in reports.values())
    ended = min(times[-1] for times in reports.values())
    images = sum(one.images for one in finished if began < one.at_s <= ended)
    if len(reports) < workers or not images:
        raise click.ClickException(
            f"[offline] expected {workers} workers to draw side by side but {len(reports)} drew {len(finished)} "
            "batches; give more --images"
        )
    return images / (ended - began)


def show(rows: Sequence[Row], title: str) -> None:
    table = Table("processes", "threads", "plain images/s a core", "Ray images/s a core", "share", title=title)
    for row in rows:
        table.add_row(
            str(row.processes), str(row.threads), f"{row.plain_per_core:.2f}", f"{row.ray_per_core:.2f}",
            f"{row.share:.1%} ({row.share_min:.1%} to {row.share_max:.1%})",
        )  # fmt: skip
    console().print(table)
