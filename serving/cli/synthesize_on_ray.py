"""`spade synthesize --ray`: label maps of folders and shards to images, on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.cli.console import interruptible, note, progress_bar, say
from serving.cli.options import COUNT, Running, option

if TYPE_CHECKING:
    from serving.offline.drawings import Batch, Recipe
    from serving.offline.painter import Setting
    from serving.offline.run import Run

LOCAL = "local"
_NAMED = 3  # failures that are printed


@dataclass(frozen=True)
class Cluster:
    """A run on a Ray cluster."""

    ray: str | None = option(
        "--ray", is_flag=False, flag_value=LOCAL, metavar="[ADDRESS]",
        help="Draw on a Ray cluster: its address, or `auto`; without an address, one that starts on this machine. "
        "Folders must be seen by every node. The same command again draws what is missing.",
    )  # fmt: skip
    count: int | None = option(
        "--count", type=COUNT, help="With --ray: images of each map, of seeds from --seed on.  [default: 1]"
    )
    workers: int | None = option(
        "--workers", type=COUNT, help="With --ray: processes with an engine of --threads.  [default: what fits]"
    )


@dataclass(frozen=True)
class Wanted:
    """What a run draws: the paths of the maps, the folder of their instance maps, and the first seed."""

    paths: Sequence[Path]
    instances: Path | None
    seed: int | None
    colours: Path | None
    format: str
    batch: int
    out: Path


def on_ray(wanted: Wanted, model: Running, cluster: Cluster, choice: Any) -> None:
    """Draw what is missing, and end with status 1 where something failed."""
    from serving.offline.painter import Setting
    from serving.offline.run import FAILED, Run
    from serving.offline.sources import find_items

    wanted.out.mkdir(parents=True, exist_ok=True)
    items = find_items(wanted.paths, wanted.instances, wanted.out)
    colours = None if wanted.colours is None else wanted.colours.resolve()
    weights = None if model.file is None else model.file.resolve()
    setting = Setting(weights, model.architecture, choice, model.threads, colours, wanted.format, wanted.out.resolve())
    engine, recipe = setting.start()
    style = bool(engine.config.style)
    if not style and (wanted.seed is not None or cluster.count is not None):
        raise click.UsageError(f"--seed, --count: model {engine.config.preset!r} has no style input; leave them out")
    del engine  # before the workers' own need memory
    first = wanted.seed or 0
    run = Run(items, range(first, first + (cluster.count or 1)) if style else None, recipe, wanted.out)
    there = len({entry.file for entry in run.entries if entry.file}) - len(run.missing)
    note(f"{len(items)} label maps; {len(run.missing)} images to draw, {there} are there")
    try:
        if run.missing:
            _draw(run, setting, recipe, cluster, wanted.batch)
    finally:
        failed = run.finish()
    say(f"{len(run.entries) - len(failed)} of {len(run.entries)} images are in {wanted.out}")
    for entry in failed[:_NAMED]:
        note(f"failed: {entry.key}: {entry.reason}")
    if failed:
        note(f"{len(failed)} failed: {wanted.out / FAILED}")
        sys.exit(1)


def _draw(run: Run, setting: Setting, recipe: Recipe, cluster: Cluster, size: int) -> None:
    import ray

    from serving.offline.drawings import batches
    from serving.offline.pool import connect, draw_on_ray, fitting

    connect(cluster.ray or LOCAL)
    try:
        fits, threads = fitting(setting.threads)
        workers = cluster.workers or fits
        note(f"{workers} workers of {threads} threads on {len([node for node in ray.nodes() if node['Alive']])} nodes")
        with progress_bar("images", len(run.missing)) as advance:

            def report(batch: Batch, failed: dict[str, str], _who: Any) -> None:
                run.note(failed)
                advance(len(batch))

            parts = batches(run.missing, size)
            interruptible(lambda: draw_on_ray(parts, replace(setting, threads=threads), recipe, workers, report))
    finally:
        ray.shutdown()
