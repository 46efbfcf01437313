"""Validation in training: scores of the averaged generator on images that training does not see."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from spade_core.maps.colours import ColourTable
from spade_core.models.form import AnyGenerator
from trainer.config import TrainConfig
from trainer.data.preprocess import Pixels
from trainer.evaluation.evaluate import Judges, Sampling, evaluate, folder_examples, scene_examples
from trainer.evaluation.judges import InceptionFile, read_class_ids, scenes_segmentation, segmentation_file

_UNIT = (0.5, 0.5, 0.5)  # mean and deviation that bring 0..1 to -1..1


class Validation:
    """The held-out images and the judges of a run, read once.

    Raises DataError, JudgeError, ImportError where one cannot be had, so that a run fails before its first step.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._config = config
        self._judges = _judges(config, device)
        self._examples()
        if self._judges.inception is not None:
            import torchmetrics  # noqa: F401 - absent, it ends the run here and not at the first validation

    def scores(self, generator: AnyGenerator) -> dict[str, float]:
        """Scores by name, of the images that `generator`, in eval mode, draws of the held-out label maps.

        `miou` and `pixel_accuracy`, with `_real` for the data set's own images, `fid`, and the `seconds` it took.
        """
        began = time.perf_counter()
        found = evaluate(generator, self._examples(), self._judges, Sampling())
        scores: dict[str, float] = {}
        for suffix, side in (("", found.generated), ("_real", found.real)):
            if side is not None:
                scores |= {f"miou{suffix}": side.miou, f"pixel_accuracy{suffix}": side.pixel_accuracy}
        if found.fid is not None:
            scores["fid"] = found.fid
        return scores | {"seconds": round(time.perf_counter() - began, 3)}

    def _examples(self) -> Iterator[Pixels]:
        config, held_out = self._config, self._config.validation
        if config.data.layout == "scenes":
            return scene_examples(config.model, held_out.images, config.data.look)
        colours = ColourTable.load(Path(config.data.colours)) if config.data.colours else None
        root, layout = Path(held_out.root), config.data.layout
        return folder_examples(config.model, root, held_out.images, colours, layout)[1]


def is_best(rows: Sequence[dict[str, float]], score: str) -> bool:
    """Whether the last row of `validation.jsonl` has the best score so far: a larger miou, a smaller fid."""
    values = [row[score] if score == "miou" else -row[score] for row in rows if row.get(score) is not None]
    return bool(rows) and rows[-1].get(score) is not None and values[-1] > max(values[:-1], default=float("-inf"))


def _judges(config: TrainConfig, device: torch.device) -> Judges:
    held_out, segment = config.validation, None
    classes = read_class_ids(Path(held_out.segmentation_classes)) if held_out.segmentation_classes else None
    if held_out.segmentation:
        size = (held_out.segmentation_size, held_out.segmentation_size) if held_out.segmentation_size else None
        values = {"mean": _UNIT, "std": _UNIT} if held_out.segmentation_input == "unit" else {}
        segment = segmentation_file(Path(held_out.segmentation), size=size, classes=classes, device=device, **values)
    elif config.data.layout == "scenes":
        segment = scenes_segmentation(device, config.data.look)
    inception = InceptionFile(Path(held_out.inception), device) if held_out.inception else None
    return Judges(segment, classes, inception)
