"""Images a second that the training data loader delivers, plans included, beside the rate of a training step.

    python -m benchmarks.training.loader --preset coco --labels DIR --step train.json --json out.json

The data set is `--labels`, each map with a JPEG of smooth noise of its size, in the layout `folder`; presets of scenes
(demo) draw their images. The files were just written, so reads come from memory, as for a data set that fits there.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.report import write_report
from spade_core.config import PRESETS, GeneratorConfig, preset
from spade_core.maps.label_maps import read_instance_map, read_label_map
from spade_core.maps.samples import drawn_maps, instance_map_path, label_map_paths
from trainer.config import TrainConfig
from trainer.config_file import from_tables
from trainer.data.dataset import Positions, Stream, loader

REPEATED = 8  # copies of each map in the data set, so that an epoch outlasts a measurement


@dataclass(frozen=True)
class Row:
    """The rate with one number of loader processes (0: the training process). `steps`: the rate over a step's rate."""

    workers: int
    images_per_s: float
    steps: float | None


def write_data_set(root: Path, labels: Path | None, model: GeneratorConfig) -> None:
    """labels/, images/ and instances/ under `root`."""
    for folder in ("labels", "images", "instances"):
        (root / folder).mkdir()
    for i, (ids, instances) in enumerate(_maps(labels, model)):
        height, width = ids.shape
        coarse = np.random.default_rng(i).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        for turn in range(REPEATED):
            Image.fromarray(ids).save(root / "labels" / f"{i}-{turn}.png")
            Image.fromarray(instances.astype(np.uint16)).save(root / "instances" / f"{i}-{turn}.png")
            image.save(root / "images" / f"{i}-{turn}.jpg", quality=90)


def _maps(labels: Path | None, model: GeneratorConfig) -> list[tuple[Any, Any]]:
    if labels is None:
        return list(zip(*drawn_maps(model, 8), strict=True))
    found = [(read_label_map(path), instance_map_path(labels, path)) for path in label_map_paths(labels)]
    return [(ids, read_instance_map(path) if path.is_file() else np.zeros_like(ids)) for ids, path in found]


def images_per_s(config: TrainConfig, workers: int, batches: int) -> float:
    """Images/s over `batches` batches; batches that start the processes and fill their queues are not counted."""
    stream, untimed = Stream(config), 1 + 2 * workers
    positions = Positions(0, (untimed + batches) * config.optim.batch, 0, 1, config.optim.batch)
    began = 0.0
    for i, _ in enumerate(loader(stream, config, positions, workers), 1):
        if i == untimed:
            began = time.perf_counter()
    return batches * config.optim.batch / (time.perf_counter() - began)


def step_images_per_s(report: Path) -> dict[str, float]:
    """Images/s of the codebook form's step in a report of benchmarks.training, by precision."""
    rows = json.loads(report.read_text())["rows"]
    return {row["precision"]: row["batch"] / row["seconds_median"] for row in rows if row["name"] == "codebook"}


@click.command()
@click.option("--preset", "preset_name", type=click.Choice(list(PRESETS)), default="coco", show_default=True)
@click.option(
    "--labels", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for benchmarks.model."
)
@click.option("--batch", type=click.IntRange(1), default=2, show_default=True, help="Images in a batch.")
@click.option("--batches", type=click.IntRange(1), default=32, show_default=True, help="Timed batches of each.")
@click.option("--workers", default="0,1,2", show_default=True, help="Loader processes.")
@click.option(
    "--step", "step_path", type=click.Path(exists=True, path_type=Path), help="What benchmarks.training wrote."
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
def main(
    preset_name: str, labels: Path | None, batch: int, batches: int, workers: str, step_path: Path | None,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Measure how many images a second the loader delivers, and how many training steps that feeds."""
    steps = {} if step_path is None else step_images_per_s(step_path)
    fastest = max(steps.values(), default=None)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as root:
        data: dict[str, Any] = {"layout": "scenes"}
        if preset_name != "demo":
            write_data_set(Path(root), labels, preset(preset_name))
            data = {"layout": "folder", "root": root}
        tables = {"model": {"preset": preset_name}, "data": data, "optim": {"batch": batch}}
        config = from_tables(tables, "the benchmark")
        for count in map(int, workers.split(",")):
            rate = images_per_s(config, count, batches)
            rows.append(Row(count, rate, None if fastest is None else rate / fastest))
    table = Table("loader processes", "images/s", "over a step's", title=f"{preset_name}, batch {batch}")
    for row in rows:
        table.add_row(str(row.workers), f"{row.images_per_s:.1f}", "" if row.steps is None else f"{row.steps:.0f}x")
    console().print(table)
    if json_path:
        found = {"step_images_per_s": steps, "rows": [asdict(row) for row in rows]}
        write_report(json_path, {"preset": preset_name, "batch": batch} | found)


if __name__ == "__main__":
    main()
