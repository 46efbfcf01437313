"""The command `spade evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from serving.cli.train import errors_as_messages
from spade_core.config import PRESETS

if TYPE_CHECKING:
    import torch

    from spade_core.config import GeneratorConfig
    from spade_core.models.form import AnyGenerator
    from trainer.data.preprocess import Pixels
    from trainer.evaluation.evaluate import Evaluation

_stdout, _stderr = Console(highlight=False), Console(stderr=True, highlight=False)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise click.BadParameter(f"expected three numbers such as 0.5,0.5,0.5 but got {value!r}")
    return numbers


@click.command()
@click.argument("weights", type=_FILE, required=False)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Score a preset's seeded, untrained weights instead.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of labels/, images/ and, where the model reads edges, instances/.  [default: scenes]",
)
@click.option("--colours", type=_FILE, help="For label maps of --data in RGB: a CSV `id,r,g,b,name` or JSON table.")
@click.option("--count", type=click.IntRange(1), help="Images to score.  [default: all of --data, or 200 scenes]")
@click.option(
    "--segmentation",
    type=_FILE,
    help="Segmentation network, ONNX or TorchScript.  [default for scenes: the shipped one]",
)
@click.option("--segmentation-size", type=click.IntRange(1), help="Side of its input, pixels.  [default: the image's]")
@click.option(
    "--segmentation-mean", default="0.485,0.456,0.406", callback=_numbers, show_default=True,
    help="Taken from its input, which is RGB in 0..1.",
)  # fmt: skip
@click.option(
    "--segmentation-std",
    default="0.229,0.224,0.225",
    callback=_numbers,
    show_default=True,
    help="Its input is divided by.",
)
@click.option(
    "--segmentation-classes", type=_FILE,
    help="JSON list: the label id of each of its classes. Labels that are not in it are not counted.",
)  # fmt: skip
@click.option("--inception", type=_FILE, help="Inception network for FID, TorchScript; without it there is no FID.")
@click.option(
    "--features", type=_FILE, help="TorchScript network whose feature maps measure diversity.  [default: pixels]"
)
@click.option(
    "--styles", type=click.IntRange(0), default=4, show_default=True, help="Styles a map for diversity; below 2: none."
)
@click.option(
    "--diversity-maps", type=click.IntRange(1), default=20, show_default=True, help="Label maps for diversity."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first image's style.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images drawn at once.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="What draws and judges; `auto` takes a GPU if there is one.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch.  [default: one per core]")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the scores here.")
def evaluate(
    weights: Path | None, preset: str | None, data: Path | None, colours: Path | None, count: int | None,
    segmentation: Path | None, segmentation_size: int | None, segmentation_mean: tuple[float, ...],
    segmentation_std: tuple[float, ...], segmentation_classes: Path | None, inception: Path | None,
    features: Path | None, styles: int, diversity_maps: int, seed: int, batch: int, device: str, threads: int | None,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Score a generator: mIoU and pixel accuracy, FID, diversity of styles.

    WEIGHTS is a checkpoint of any architecture, the paper's baselines included. Without --data, scenes are drawn that
    no generator and no judge was trained on, and a small segmentation network that ships judges them.

    \b
    spade evaluate demo.safetensors
    spade evaluate --preset demo --count 50
    spade evaluate coco.safetensors --data val/ --segmentation deeplab.onnx --inception inception.pt --json scores.json

    Exit status: 0 scored, 1 not, for the reason shown, 2 wrong usage, 130 interrupted; --json is then not written.
    """
    if (weights is None) == (preset is None):
        raise click.UsageError("give either a checkpoint or --preset")
    import torch

    from trainer.evaluation import evaluate as run
    from trainer.evaluation.judges import InceptionFile, feature_file, scenes_segmentation, segmentation_file

    with errors_as_messages("nothing was written"):
        if threads is not None:
            torch.set_num_threads(threads)
        if json_path is not None:  # a folder that cannot be made is better known before the work than after it
            json_path.parent.mkdir(parents=True, exist_ok=True)
        classes = _classes(segmentation_classes)
        if classes is not None and segmentation is None:
            raise click.UsageError("--segmentation-classes: give the --segmentation network that it describes")
        place = _device(device)
        generator, source = _generator(weights, preset)
        generator.to(place)
        total, examples = _examples(generator.config, source, data, colours, count)
        judge = None
        if segmentation is not None:
            side = None if segmentation_size is None else (segmentation_size, segmentation_size)
            judge = segmentation_file(
                segmentation,
                size=side,
                mean=segmentation_mean,
                std=segmentation_std,
                classes=classes,
                device=place,
            )
        elif data is None:
            judge = scenes_segmentation(place)
        else:
            _stderr.print("no mIoU: give --segmentation a network that knows the labels of --data", soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal) as progress:
            task = progress.add_task("images", total=total)
            judges = run.Judges(
                judge,
                classes,
                inception=None if inception is None else InceptionFile(inception, place),
                features=None if features is None else feature_file(features, place),
            )
            sampling = run.Sampling(seed, batch, styles, diversity_maps)
            found = run.evaluate(generator, examples, judges, sampling, lambda n: progress.advance(task, n))
        config = generator.config
        judged_by = str(segmentation or "the scenes' own") if judge is not None else "none"
        report = {
            "model": source, "architecture": config.architecture, "height": config.height, "width": config.width,
            "data": str(data or "scenes"), "seed": seed, "segmentation": judged_by,
            "inception": str(inception or "none"), **found.to_dict(),
        }  # fmt: skip
        if json_path is not None:
            json_path.write_text(json.dumps(report, indent=1) + "\n")
        _stdout.print(_table(source, found))


def _device(name: str) -> torch.device:
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise RuntimeError("[evaluate] expected a CUDA GPU for --device cuda but PyTorch sees none; take cpu or auto")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def _generator(weights: Path | None, preset: str | None) -> tuple[AnyGenerator, str]:
    from spade_core.config import preset as preset_config
    from spade_core.files.checkpoints import load_any
    from spade_core.models.seeded import seeded_generator

    if weights is not None:
        return load_any(weights)[0], str(weights)
    return seeded_generator(preset_config(preset or "")), f"{preset}, untrained"


def _examples(
    config: GeneratorConfig, source: str, data: Path | None, colours: Path | None, count: int | None
) -> tuple[int, Iterator[Pixels]]:
    from spade_core.maps.colours import ColourTable
    from trainer.evaluation import evaluate as run

    if data is not None:
        return run.folder_examples(config, data, count, None if colours is None else ColourTable.load(colours))
    if colours is not None:
        raise click.UsageError("--colours: scenes hold ids; give --data a folder of label maps in RGB")
    if config.label_nc != PRESETS["demo"].label_nc:
        raise click.UsageError(f"scenes have the demo's 16 classes but '{source}' has {config.label_nc}: give --data")
    total = count or 200
    return total, run.scene_examples(config, total)


def _classes(path: Path | None) -> list[int] | None:
    if path is None:
        return None
    try:
        ids = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"[evaluate] expected a JSON list of label ids in '{path}' but got {error}") from None
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 256 for i in ids) or not ids:
        raise ValueError(f"[evaluate] expected a JSON list of label ids 0..255 in '{path}' but got {str(ids)[:80]}")
    return ids


def _table(source: str, found: Evaluation) -> Table:
    table = Table("score", box=None, title=f"{source}, {found.images} images")
    table.add_column("generated", justify="right")
    table.add_column("real images", justify="right")
    if found.generated is not None and found.real is not None:
        table.add_row("mIoU", f"{found.generated.miou:.3f}", f"{found.real.miou:.3f}")
        table.add_row("pixel accuracy", f"{found.generated.pixel_accuracy:.3f}", f"{found.real.pixel_accuracy:.3f}")
        for name in found.real.class_iou | found.generated.class_iou:
            ious = (side.class_iou.get(name) for side in (found.generated, found.real))
            table.add_row(f"  IoU of {name}", *("-" if iou is None else f"{iou:.3f}" for iou in ious))
    if found.fid is not None:
        table.add_row("FID", f"{found.fid:.2f}", "")
    if found.diversity is not None:
        one = found.diversity
        table.add_row(f"diversity ({one.styles} styles of {one.maps} maps)", f"{one.value:.4f}", "")
        table.caption = one.distance
    return table
