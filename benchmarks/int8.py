"""The main convs in INT8: what it does to the image and to the time, against the same graph unquantised, in one run.

    python -m benchmarks.int8 --preset coco --labels DIR --json out.json

Calibrated on the first maps, measured on the others. mIoU needs a trained model and is not taken here.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.maps import Maps, read_maps
from benchmarks.model import machine
from export.feeds import codebook_feed, dense_feed
from export.int8 import quantise
from export.onnx import Form, export_codebook, export_dense
from export.verify import RUNTIMES, open_session
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.dense import synthesize_dense
from spade_core.generator import Generator


@dataclass(frozen=True)
class Int8Row:
    """One runtime on one file. Times are of one map; errors against PyTorch's float32 dense form, images in -1..1."""

    runtime: str
    precision: str
    seconds_median: float
    seconds_min: float
    seconds_max: float
    max_error: float
    psnr_db: float
    megabytes: float


def run(
    generator: Generator, maps: Maps, calibrate: int, form: Form, repeats: int, threads: int, folder: Path
) -> list[Int8Row]:
    """Export, quantise on the first `calibrate` maps, and measure both files in every runtime on the others."""
    make_feed = dense_feed if form == "dense" else codebook_feed
    feeds = [make_feed(*maps.one(i), generator.config) for i in range(len(maps.labels))]
    files = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    (export_dense if form == "dense" else export_codebook)(generator, files["fp32"])
    quantise(files["fp32"], files["int8"], feeds[:calibrate])
    reference = reference_images(generator, maps)[calibrate:]
    return [
        measure(runtime, precision, path, feeds[calibrate:], reference, repeats, threads)
        for runtime in RUNTIMES
        for precision, path in files.items()
    ]


def reference_images(generator: Generator, maps: Maps) -> npt.NDArray[np.float32]:
    """PyTorch's float32 dense form, map by map."""
    images = []
    with torch.inference_mode():
        for i in range(len(maps.labels)):
            style = None if maps.style is None else torch.from_numpy(maps.style[i : i + 1])
            images.append(torch.tanh(synthesize_dense(generator, torch.from_numpy(maps.symbols[i : i + 1]), style)))
    stacked: npt.NDArray[np.float32] = torch.cat(images).numpy()
    return stacked


def measure(
    runtime: str, precision: str, path: Path, feeds: Sequence[Any], reference: Any, repeats: int, threads: int
) -> Int8Row:
    """Every map `repeats` times after one untimed call."""
    session = open_session(runtime, path, threads)
    seconds, images = [], []
    for feed in feeds:
        images.append(session(feed))
        for _ in range(repeats):
            began = time.perf_counter()
            session(feed)
            seconds.append(time.perf_counter() - began)
    error = np.abs(np.concatenate(images).astype(np.float64) - reference)
    mse = float(np.mean(error**2))
    return Int8Row(
        runtime, precision, float(np.median(seconds)), min(seconds), max(seconds), float(error.max()),
        round(float(10 * np.log10(4 / mse)), 1) if mse else float("inf"), path.stat().st_size / 1e6,
    )  # fmt: skip


def table(rows: Sequence[Int8Row], form: str) -> Table:
    """The rows; `x` is the time of the runtime's float32 file over the row's."""
    whole = {row.runtime: row.seconds_median for row in rows if row.precision == "fp32"}
    out = Table(
        "runtime", "main convs", "ms median", "ms min..max", "x", "max error", "PSNR dB", "MB", title=f"{form} graph"
    )
    for row in rows:
        out.add_row(
            row.runtime, row.precision, f"{row.seconds_median * 1e3:.1f}",
            f"{row.seconds_min * 1e3:.1f}..{row.seconds_max * 1e3:.1f}",
            f"{whole[row.runtime] / row.seconds_median:.2f}", f"{row.max_error:.1e}", f"{row.psnr_db:.1f}",
            f"{row.megabytes:.1f}",
        )  # fmt: skip
    return out


@click.command()
@click.option("--preset", "preset_name", type=click.Choice(list(PRESETS)), default="demo", show_default=True,
              help="Architecture.")  # fmt: skip
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Checkpoint; without it, seeded weights.")  # fmt: skip
@click.option("--labels", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of label maps, or one holding label/ and inst/. Without it, drawn maps.")  # fmt: skip
@click.option("--form", type=click.Choice(["dense", "codebook"]), default="codebook", show_default=True, help="Graph.")
@click.option("--maps", "count", type=click.IntRange(2), default=8, show_default=True, help="Label maps in all.")
@click.option("--calibrate", type=click.IntRange(1), default=4, show_default=True, help="Maps to calibrate on.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Timed calls for each map.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each runtime; default: all cores.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
def main(
    preset_name: str, weights: Path | None, labels: Path | None, form: Any, count: int, calibrate: int, repeats: int,
    threads: int | None, json_path: Path | None,
) -> None:  # fmt: skip
    """Quality and speed of INT8 main convs against float32, on the same weights and label maps."""
    from serving.engines.load import load_checkpoint

    if calibrate >= count:
        raise click.UsageError(f"--calibrate {calibrate}: some of the {count} maps must be left to measure on")
    checkpoint = load_checkpoint(weights, preset_name)
    config: GeneratorConfig = checkpoint.config
    maps = read_maps(config, labels, count)
    if calibrate >= len(maps.labels):
        raise click.UsageError(f"--calibrate {calibrate}: {labels} holds {len(maps.labels)}; some must be left")
    with tempfile.TemporaryDirectory() as folder:
        used = threads or len(os.sched_getaffinity(0))
        rows = run(checkpoint.generator, maps, calibrate, form, repeats, used, Path(folder))
    Console().print(table(rows, form))
    if json_path:
        report = {"machine": machine(), "preset": preset_name, "form": form, "labels": str(labels or "drawn"),
                  "calibrated_on": calibrate, "rows": [asdict(row) for row in rows]}  # fmt: skip
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
