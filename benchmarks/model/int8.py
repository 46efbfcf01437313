"""Error and speed of the main convs in INT8, against the same graph unquantised, in one run.

    python -m benchmarks.model.int8 --preset coco --labels DIR --json out.json

Calibrates on the first maps and measures on the others. Where the weights were trained on scenes (`--weights`, the demo
model), the segmentation network that ships also judges the images of unseen scenes: mIoU and pixel accuracy.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.errors import image_error
from benchmarks.common.maps import Maps, labels_name, read_maps
from benchmarks.common.options import json_option, labels_option, preset_option, weights_option
from benchmarks.common.report import write_report
from export.feeds import codebook_feed, dense_feed
from export.int8 import quantise
from export.onnx import Form, export_graph
from export.verify import RUNTIMES, open_session
from kernels.ops.image import pixels_numpy
from serving.engines.choose import UNTRAINED, load_checkpoint
from spade_core.config import GeneratorConfig
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.style import style_from_seed
from trainer.data.preprocess import Pixels
from trainer.evaluation.evaluate import Evaluation, Judges, Sampling, evaluate, scene_examples
from trainer.evaluation.judges import scenes_segmentation
from trainer.evaluation.scores import LabelScores

FEEDS = {"dense": dense_feed, "codebook": codebook_feed}
JUDGED_AT_ONCE = 8  # scenes a batch


@dataclass(frozen=True)
class Int8Row:
    """One runtime on one file. Times are seconds of one map; errors are against PyTorch's float32 dense form, in -1..1.

    Attributes:
        scores: the segmentation network's scores on images of unseen scenes; None where the network cannot judge.
    """

    runtime: str
    precision: str
    seconds_median: float
    seconds_min: float
    seconds_max: float
    max_error: float
    psnr_db: float
    megabytes: float
    scores: LabelScores | None


@dataclass(frozen=True)
class Options:
    """How the files are made and measured.

    Attributes:
        form: graph, `dense` or `codebook`.
        calibrate: maps to calibrate on.
        repeats: timed calls for each map.
        threads: threads of each runtime.
    """

    form: Form
    calibrate: int
    repeats: int
    threads: int


def run(
    generator: Generator, maps: Maps, options: Options, folder: Path, scenes: Sequence[Pixels]
) -> tuple[list[Int8Row], LabelScores | None]:
    """Export, quantise on the first maps, and measure both files in every runtime on the other maps.

    The segmentation network judges the files' images of `scenes`. The second result is the scores of the real scenes,
    None without scenes.
    """
    form, calibrate, threads = options.form, options.calibrate, options.threads
    feeds = [FEEDS[form](*maps.one(i), generator.config) for i in range(len(maps.labels))]
    files = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    export_graph(generator, files["fp32"], form)
    quantise(files["fp32"], files["int8"], feeds[:calibrate])
    reference = reference_images(generator, maps)[calibrate:]
    rows, real = [], None
    for runtime in RUNTIMES:
        for precision, path in files.items():
            row = measure(runtime, precision, path, feeds[calibrate:], reference, options.repeats, threads)
            if scenes:
                judged = judge(generator, runtime, path, form, scenes, threads)
                row, real = replace(row, scores=judged.generated), judged.real
            rows.append(row)
    return rows, real


def reference_images(generator: Generator, maps: Maps) -> npt.NDArray[np.float32]:
    """The images of PyTorch's float32 dense form, map by map."""
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
    max_error, psnr_db = image_error(np.concatenate(images), reference)
    return Int8Row(
        runtime, precision, float(np.median(seconds)), min(seconds), max(seconds), max_error, psnr_db,
        path.stat().st_size / 1e6, None,
    )  # fmt: skip


def judge(
    generator: Generator, runtime: str, path: Path, form: Form, scenes: Sequence[Pixels], threads: int
) -> Evaluation:
    """`spade evaluate` on the images that a runtime draws with the file. Scene i has the style of seed i."""
    config = generator.config
    session = open_session(runtime, path, threads)

    def draw(some: Sequence[Pixels], seeds: Sequence[int]) -> torch.Tensor:
        labels = np.stack([one.labels for one in some])
        instances = [one.instances for one in some if one.instances is not None]
        style = np.stack([style_from_seed(seed) for seed in seeds]) if config.style else None
        image = session(FEEDS[form](labels, np.stack(instances) if instances else None, style, config))
        return torch.from_numpy(pixels_numpy(image).transpose(0, 3, 1, 2))  # [N, 3, H, W]

    judges, sampling = Judges(scenes_segmentation()), Sampling(batch=JUDGED_AT_ONCE)
    return evaluate(generator, iter(scenes), judges, sampling, draw=draw)


def why_unjudged(metadata: Mapping[str, str]) -> str | None:
    """Why no network can judge images of a checkpoint with this metadata; None where the scenes' network can."""
    data = metadata.get("data")
    if data == "scenes":
        return None
    kind = "untrained" if metadata.get("weights") == UNTRAINED else f"trained on {data or 'unknown'} data"
    return f"no mIoU: the judge knows scenes and these weights are {kind}; give the demo model's by --weights"


def table(rows: Sequence[Int8Row], form: str, real: LabelScores | None, unjudged: str | None) -> Table:
    """The rows, then the real scenes. `x` is the time of the runtime's float32 file over the time of the row."""
    whole = {row.runtime: row.seconds_median for row in rows if row.precision == "fp32"}
    out = Table(
        "runtime", "main convs", "ms median", "ms min..max", "x", "max error", "PSNR dB", "mIoU", "pixel accuracy",
        "MB", title=f"{form} graph", caption=unjudged,
    )  # fmt: skip
    for row in rows:
        out.add_row(
            row.runtime, row.precision, f"{row.seconds_median * 1e3:.1f}",
            f"{row.seconds_min * 1e3:.1f}..{row.seconds_max * 1e3:.1f}",
            f"{whole[row.runtime] / row.seconds_median:.2f}", f"{row.max_error:.1e}", f"{row.psnr_db:.1f}",
            *_shares(row.scores), f"{row.megabytes:.1f}",
        )  # fmt: skip
    if real is not None:
        out.add_section()
        out.add_row("real scenes", *[""] * 6, *_shares(real), "")
    return out


def _shares(scores: LabelScores | None) -> tuple[str, str]:
    return ("", "") if scores is None else (f"{scores.miou:.3f}", f"{scores.pixel_accuracy:.3f}")


@click.command()
@preset_option("demo")
@weights_option("Checkpoint, in place of --preset; without it, seeded weights.")
@labels_option()
@click.option("--form", type=click.Choice(["dense", "codebook"]), default="codebook", show_default=True, help="Graph.")
@click.option("--maps", "count", type=click.IntRange(2), default=8, show_default=True, help="Label maps in all.")
@click.option("--calibrate", type=click.IntRange(1), default=4, show_default=True, help="Maps to calibrate on.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Timed calls for each map.")
@click.option("--scenes", "scene_count", type=click.IntRange(1), default=40, show_default=True,
              help="Unseen scenes for mIoU and pixel accuracy, of weights that were trained on scenes.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Threads of each runtime; default: all cores.")
@json_option()
def main(
    preset_name: str, weights: Path | None, labels: Path | None, count: int, scene_count: int, json_path: Path | None,
    threads: int | None, **measuring: Any,
) -> None:  # fmt: skip
    """Quality and speed of INT8 main convs against float32, on the same weights and label maps."""
    options = Options(**measuring, threads=threads or len(os.sched_getaffinity(0)))
    form, calibrate = options.form, options.calibrate
    if calibrate >= count:
        raise click.UsageError(f"--calibrate {calibrate}: some of the {count} maps must be left to measure on")
    checkpoint = load_checkpoint(weights, preset_name)
    config: GeneratorConfig = checkpoint.config
    unjudged = why_unjudged(checkpoint.metadata)
    scenes = [] if unjudged else list(scene_examples(config, scene_count))
    maps = read_maps(config, labels, count)
    if calibrate >= len(maps.labels):
        raise click.UsageError(f"--calibrate {calibrate}: {labels} holds {len(maps.labels)}; some must be left")
    with tempfile.TemporaryDirectory() as folder:
        rows, real = run(checkpoint.generator, maps, options, Path(folder), scenes)
    console().print(table(rows, form, real, unjudged))
    if json_path:
        report = {"preset": config.preset, "weights": checkpoint.metadata, "form": form,
                  "labels": labels_name(labels), "calibrated_on": calibrate, "rows": [asdict(row) for row in rows],
                  "scenes": len(scenes), "real_scenes": None if real is None else asdict(real),
                  "unjudged": unjudged}  # fmt: skip
        write_report(json_path, report)


if __name__ == "__main__":
    main()
