"""`spade evaluate`: scores of a generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.cli.console import Command, interruptible, note, progress_bar, say, stdout
from serving.cli.options import (
    BATCH,
    COUNT,
    FILE,
    FOLDER,
    LAYOUTS,
    OUT_FILE,
    SEED,
    THREADS,
    option,
    options,
    refuse_both,
)
from spade_core.config import CUSTOM, DEMO_WEIGHTS, PRESETS
from spade_core.files.strict_json import json_text

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from spade_core.config import GeneratorConfig
    from spade_core.models.encoder import StyleEncoder
    from spade_core.models.form import AnyGenerator
    from trainer.data.preprocess import Pixels
    from trainer.evaluation.evaluate import Evaluation
    from trainer.evaluation.measures import Looks

_SCENES = 200


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise click.BadParameter(f"expected three numbers such as 0.5,0.5,0.5 but got {value!r}")
    return numbers


@dataclass(frozen=True)
class Examples:
    """The label maps and real images to score on, and where the scores go."""

    data: Path | None = option(
        "--data", type=FOLDER,
        help="Folder of labels/, images/ and, where the model reads edges, instances/.  [default: scenes]",
    )  # fmt: skip
    layout: str = option(
        "--layout", type=click.Choice(LAYOUTS), default=LAYOUTS[0], show_default=True,
        help="What --data holds, as in training; the layouts of published data sets hold their training split.",
    )  # fmt: skip
    colours: Path | None = option(
        "--colours", type=FILE, help="For label maps of --data in RGB: a CSV `id,r,g,b,name` or JSON table."
    )
    count: int | None = option("--count", type=COUNT, help="Images to score.  [default: all of --data, or 200 scenes]")
    json_file: Path | None = option("--json", type=OUT_FILE, help="Write the scores to this file.")


@dataclass(frozen=True)
class Judges:
    """The networks that judge images."""

    segmentation: Path | None = option(
        "--segmentation", type=FILE,
        help="Segmentation network, ONNX or TorchScript.  [default for scenes: the shipped one]",
    )  # fmt: skip
    size: int | None = option(
        "--segmentation-size",
        type=click.IntRange(1, 16384),
        help="Side of the network's input, pixels.  [default: the image's]",
    )
    mean: tuple[float, ...] = option(
        "--segmentation-mean", default="0.485,0.456,0.406", callback=_numbers, show_default=True,
        help="Mean that is subtracted from the network's input, RGB in 0..1.",
    )  # fmt: skip
    std: tuple[float, ...] = option(
        "--segmentation-std", default="0.229,0.224,0.225", callback=_numbers, show_default=True,
        help="Deviation that the network's input is divided by.",
    )  # fmt: skip
    classes: Path | None = option(
        "--segmentation-classes", type=FILE,
        help="JSON list: the label id of each class of the network. Other labels are not counted.",
    )  # fmt: skip
    inception: Path | None = option(
        "--inception", type=FILE, help="Inception network for FID, TorchScript; without it there is no FID."
    )
    features: Path | None = option(
        "--features", type=FILE, help="TorchScript network whose feature maps measure diversity.  [default: pixels]"
    )


@dataclass(frozen=True)
class Drawing:
    """How many images are drawn, in which styles, and by what."""

    styles: int = option(
        "--styles", type=click.IntRange(0, 1000), default=4, show_default=True,
        help="Styles of each map for diversity; below 2, diversity is not measured.",
    )  # fmt: skip
    diversity_maps: int = option(
        "--diversity-maps", type=COUNT, default=20, show_default=True, help="Label maps for diversity."
    )
    seed: int = option("--seed", type=SEED, default=0, show_default=True, help="Seed of the first image's style.")
    batch: int = option("--batch", type=BATCH, default=8, show_default=True, help="Images drawn at once.")
    device: str = option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
        help="Device that draws and judges; `auto` takes a GPU if there is one.",
    )  # fmt: skip
    threads: int | None = option("--threads", type=THREADS, help="Threads of PyTorch.  [default: one per core]")


@click.command(cls=Command, short_help="Score a generator: mIoU, FID, diversity.")
@click.argument("weights", type=FILE, required=False)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Score a preset's seeded, untrained weights instead.")
@options(Examples, "examples")
@options(Judges, "judges")
@options(Drawing, "drawing")
def evaluate(weights: Path | None, preset: str | None, examples: Examples, judges: Judges, drawing: Drawing) -> None:
    """Score a generator: mIoU and pixel accuracy, FID, diversity of styles, grid and border.

    WEIGHTS is a checkpoint of any architecture, the paper's baselines included; without it, the demo model. Without
    --data, scenes are drawn that no generator and no judge was trained on, and a small segmentation network that ships
    judges them.

    \b
    spade evaluate demo.safetensors
    spade evaluate --preset demo --count 50
    spade evaluate coco.safetensors --data val/ --segmentation deeplab.onnx --inception inception.pt --json scores.json

    Exit status: 0 scored, 1 not, for the reason shown, 2 wrong usage, 130 interrupted; --json is then not written.
    """
    refuse_both(weights, preset)
    from trainer.evaluation.judges import read_class_ids

    classes = None if judges.classes is None else read_class_ids(judges.classes)
    if classes is not None and judges.segmentation is None:
        raise click.UsageError("--segmentation-classes: give the --segmentation network that it describes")
    json_file = examples.json_file
    if json_file is not None:  # fails before the work where the folder cannot be made
        json_file.parent.mkdir(parents=True, exist_ok=True)
    import torch

    if drawing.threads is not None:
        torch.set_num_threads(drawing.threads)
    generator, encoder, source = _networks(weights, preset)
    for network in (generator, encoder):
        if network is not None:
            network.to(_device(drawing.device))
    found, judged_by = interruptible(partial(_scores, (generator, encoder, source), examples, judges, drawing, classes))
    config = generator.config
    report = {
        "model": source, "architecture": config.architecture, "height": config.height, "width": config.width,
        "data": str(examples.data or "scenes"), "seed": drawing.seed, "segmentation": judged_by,
        "inception": str(judges.inception or "none"), **found.to_dict(),
    }  # fmt: skip
    if json_file is not None:
        json_file.write_text(json_text(report, indent=1) + "\n")
    say(f"{source}, {found.images} images")
    stdout().print(_table(found))
    if found.diversity is not None:
        say(found.diversity.distance)


def _scores(
    model: tuple[AnyGenerator, StyleEncoder | None, str], examples: Examples, judges: Judges, drawing: Drawing,
    classes: list[int] | None,
) -> tuple[Evaluation, str]:  # fmt: skip
    """The scores, and the name of the segmentation network behind them."""
    from trainer.evaluation import evaluate as run
    from trainer.evaluation.judges import InceptionFile, feature_file, scenes_features

    generator, encoder, source = model
    place = _device(drawing.device)
    total, pixels = _examples(generator.config, source, examples)
    segment, judged_by = _segmentation(judges, classes, place, on_scenes=examples.data is None)
    with progress_bar("images", total) as advance:
        networks = run.Judges(
            segment,
            classes,
            inception=None if judges.inception is None else InceptionFile(judges.inception, place),
            features=None if judges.features is None else feature_file(judges.features, place),
            pooled=scenes_features(place) if examples.data is None else None,
        )
        sampling = run.Sampling(drawing.seed, drawing.batch, drawing.styles, drawing.diversity_maps)
        found = run.evaluate(generator, pixels, networks, sampling, advance, encoder=encoder)
    return found, judged_by


def _segmentation(judges: Judges, classes: list[int] | None, place: torch.device, on_scenes: bool) -> tuple[Any, str]:
    from trainer.evaluation.judges import scenes_segmentation, segmentation_file

    if judges.segmentation is not None:
        size = None if judges.size is None else (judges.size, judges.size)
        network = segmentation_file(
            judges.segmentation, size=size, mean=judges.mean, std=judges.std, classes=classes, device=place
        )
        return network, str(judges.segmentation)
    if on_scenes:
        return scenes_segmentation(place), "the scenes' own"
    note("no mIoU: give --segmentation a network that knows the labels of --data")
    return None, "none"


def _device(name: str) -> torch.device:
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise RuntimeError("[evaluate] expected a CUDA GPU for --device cuda but PyTorch sees none; take cpu or auto")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def _networks(weights: Path | None, preset: str | None) -> tuple[AnyGenerator, StyleEncoder | None, str]:
    from spade_core.files.checkpoints import load_any
    from spade_core.models.seeded import seeded_generator

    if preset is not None:
        return seeded_generator(PRESETS[preset]), None, f"{preset}, untrained"
    path = weights or DEMO_WEIGHTS
    generator, encoder, _ = load_any(path)
    return generator, encoder, str(path)


def _examples(config: GeneratorConfig, source: str, examples: Examples) -> tuple[int, Iterator[Pixels]]:
    from spade_core.maps.colours import ColourTable
    from trainer.evaluation import evaluate as run

    if examples.data is not None:
        table = None if examples.colours is None else ColourTable.load(examples.colours)
        return run.folder_examples(config, examples.data, examples.count, table, examples.layout)
    if examples.colours is not None:
        raise click.UsageError("--colours: scenes hold ids; give --data a folder of label maps in RGB")
    if examples.layout != LAYOUTS[0]:
        raise click.UsageError(f"--layout {examples.layout}: scenes are drawn; give --data, the folder of the data set")
    if config.preset == CUSTOM:
        raise click.UsageError(f"scenes have the demo's classes but '{source}' has its own: give --data")
    if config.label_nc != PRESETS["demo"].label_nc:
        raise click.UsageError(f"scenes have the demo's 16 classes but '{source}' has {config.label_nc}: give --data")
    total = examples.count or _SCENES
    return total, run.scene_examples(config, total)


def _table(found: Evaluation) -> Table:
    from rich.table import Table

    table = Table("score", box=None)
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
    _add_looks(table, found.looks)
    return table


def _add_looks(table: Table, looks: Looks) -> None:
    """Rows of the measures of looks; the column of real images holds what a perfect generator would have."""
    if looks.halves is not None:
        name = f"FID of halves of {looks.halves.images}, judge's features"
        table.add_row(name, f"{looks.halves.generated:.2f}", f"{looks.halves.real:.2f}")
    for period, one in looks.grid.generated.items():
        real = looks.grid.real[period]
        table.add_row(f"grid energy, period {period}", f"{one.energy:.2f}", f"{real.energy:.2f}")
        table.add_row("  peak above its surroundings", f"{one.peak:.2f}", f"{real.peak:.2f}")
    if looks.border is not None:
        table.add_row(f"error in the outer {looks.border.width} pixels", f"{looks.border.border:.2f}", "")
        table.add_row("  in the middle", f"{looks.border.middle:.2f}", "")
