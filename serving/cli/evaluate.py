"""`spade evaluate`: scores of a generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    LOOKS,
    OUT_FILE,
    SEED,
    THREADS,
    option,
    options,
    refuse_both,
)
from serving.cli.score_table import score_table
from spade_core.config import CUSTOM, DEMO_WEIGHTS, PRESETS
from spade_core.files.strict_json import json_text

if TYPE_CHECKING:
    import torch

    from spade_core.config import GeneratorConfig
    from spade_core.models.encoder import StyleEncoder
    from spade_core.models.form import AnyGenerator
    from trainer.data.preprocess import Pixels
    from trainer.evaluation.evaluate import Evaluation

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
    look: str | None = option(
        "--look",
        type=click.Choice(LOOKS),
        help="How the scenes are drawn.  [default: as the model was taught]",
    )
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
    model = _model(weights, preset)
    for network in (model.generator, model.encoder):
        if network is not None:
            network.to(_device(drawing.device))
    examples = replace(examples, look=examples.look or model.look)
    found, judged_by = interruptible(partial(_scores, model, examples, judges, drawing, classes))
    config, source = model.generator.config, model.source
    report = {
        "model": source, "architecture": config.architecture, "height": config.height, "width": config.width,
        "data": str(examples.data or f"scenes, {examples.look}"), "seed": drawing.seed, "segmentation": judged_by,
        "inception": str(judges.inception or "none"), **found.to_dict(),
    }  # fmt: skip
    if json_file is not None:
        json_file.write_text(json_text(report, indent=1) + "\n")
    say(f"{source}, {found.images} images")
    stdout().print(score_table(found))
    if found.diversity is not None:
        say(found.diversity.distance)


def _scores(
    model: _Model, examples: Examples, judges: Judges, drawing: Drawing, classes: list[int] | None
) -> tuple[Evaluation, str]:  # fmt: skip
    """The scores, and the name of the segmentation network behind them."""
    from trainer.evaluation import evaluate as run
    from trainer.evaluation.judges import InceptionFile, feature_file, scenes_features

    generator, look = model.generator, examples.look or "flat"
    place = _device(drawing.device)
    total, pixels = _examples(generator.config, model.source, examples)
    segment, judged_by = _segmentation(judges, classes, place, look if examples.data is None else None)
    with progress_bar("images", total) as advance:
        networks = run.Judges(
            segment,
            classes,
            inception=None if judges.inception is None else InceptionFile(judges.inception, place),
            features=None if judges.features is None else feature_file(judges.features, place),
            pooled=scenes_features(place, look) if examples.data is None else None,
        )
        sampling = run.Sampling(drawing.seed, drawing.batch, drawing.styles, drawing.diversity_maps)
        found = run.evaluate(generator, pixels, networks, sampling, advance, encoder=model.encoder)
    return found, judged_by


def _segmentation(judges: Judges, classes: list[int] | None, place: torch.device, look: str | None) -> tuple[Any, str]:
    """The network that judges and its name; `look` is of the scenes, or None for a data set."""
    from trainer.evaluation.judges import scenes_segmentation, segmentation_file

    if judges.segmentation is not None:
        size = None if judges.size is None else (judges.size, judges.size)
        network = segmentation_file(
            judges.segmentation, size=size, mean=judges.mean, std=judges.std, classes=classes, device=place
        )
        return network, str(judges.segmentation)
    if look is not None:
        return scenes_segmentation(place, look), "the scenes' own"
    note("no mIoU: give --segmentation a network that knows the labels of --data")
    return None, "none"


def _device(name: str) -> torch.device:
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise RuntimeError("[evaluate] expected a CUDA GPU for --device cuda but PyTorch sees none; take cpu or auto")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


@dataclass(frozen=True)
class _Model:
    """The networks to score, where they are from, and the look of the scenes that they were taught."""

    generator: AnyGenerator
    encoder: StyleEncoder | None
    source: str
    look: str


def _model(weights: Path | None, preset: str | None) -> _Model:
    from spade_core.files.checkpoints import load_any
    from spade_core.models.seeded import seeded_generator

    if preset is not None:
        return _Model(seeded_generator(PRESETS[preset]), None, f"{preset}, untrained", "flat")
    path = weights or DEMO_WEIGHTS
    generator, encoder, metadata = load_any(path)
    return _Model(generator, encoder, str(path), metadata.get("look", "flat"))


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
    return total, run.scene_examples(config, total, examples.look or "flat")
