"""Evaluation of a generator: images for label maps, judged by networks that have not seen it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.ops.plan import plan
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import GeneratorConfig, level_sizes
from spade_core.maps.colours import ColourTable, class_names
from spade_core.maps.label_maps import prepare
from spade_core.models.registry import AnyGenerator
from spade_core.models.style import style_from_seed
from trainer.data.dataset import read_example
from trainer.data.layouts import find_examples
from trainer.data.preprocess import Pixels, resized
from trainer.evaluation.judges import InceptionFile, Segment
from trainer.evaluation.scores import Confusion, LabelScores, feature_distance, pairs, pixel_distance
from trainer.scenes.scene import scene

Draw = Callable[[Sequence[Pixels], Sequence[int]], Tensor]
"""Examples of one size and a style seed for each -> uint8 images [N, 3, H, W] on the CPU."""

PIXEL_DISTANCE = "pixel distance: mean absolute difference, 0..1"
FEATURE_DISTANCE = "feature distance: LPIPS without learned weights"


@dataclass(frozen=True)
class Diversity:
    """Mean distance between images of one label map in different styles.

    Attributes:
        distance: which distance.
        maps, styles: label maps, and styles of each.
    """

    value: float
    distance: str
    maps: int
    styles: int


@dataclass(frozen=True)
class Evaluation:
    """All scores of one run; those that were not asked for are None.

    Attributes:
        images: how many were generated for `generated` and `fid`.
        real: the scores of the data set's own images, the same segmentation network: what a perfect generator gets.
    """

    images: int
    generated: LabelScores | None
    real: LabelScores | None
    fid: float | None
    diversity: Diversity | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def scene_examples(config: GeneratorConfig, count: int) -> Iterator[Pixels]:
    """The first `count` scenes, which no generator and no judge was trained on, at the model's size."""
    for seed in range(count):
        drawn = scene(seed, height=config.height, width=config.width)
        yield Pixels(drawn.labels, drawn.instances if config.instance_edges else None, drawn.image)


def folder_examples(
    config: GeneratorConfig, root: Path, limit: int | None, colours: ColourTable | None = None
) -> tuple[int, Iterator[Pixels]]:
    """How many, and the examples of a folder (labels/, images/, instances/) at the model's size. Raises DataError.

    `colours` reads label maps in RGB.
    """
    found = find_examples("folder", root, config)[:limit]
    return len(found), (resized(read_example(one, config, colours), config.height, config.width) for one in found)


def evaluate(
    generator: AnyGenerator,
    examples: Iterator[Pixels],
    *,
    segment: Segment | None,
    label_ids: Sequence[int] | None,
    inception: InceptionFile | None,
    features: Callable[[Tensor], list[Tensor]] | None,
    styles: int,
    diversity_maps: int,
    batch: int,
    seed: int,
    done: Callable[[int], None],
    draw: Draw | None = None,
) -> Evaluation:
    """Draw an image for every example and score it. `done` hears how many examples each batch added.

    Args:
        generator: in eval mode, on the device that draws; image i has the style of seed + i where it takes one.
        segment: for mIoU and pixel accuracy; None leaves them out.
        label_ids: the labels that `segment` knows: pixels of others are not counted; None: it knows all.
        inception: for FID; None leaves it out.
        features: for diversity; None measures pixels.
        styles: styles a map for diversity, on the first `diversity_maps` maps; below 2 leaves it out.
        draw: what draws in the generator's place, such as a file exported from it; None: the generator itself.

    Raises ValueError for label maps that the model does not know, and fewer than two images where FID is asked for.
    """
    config = generator.config
    draw = draw or _Drawing(generator)
    names, known = class_names(config), config.label_nc
    generated, real = Confusion(known), Confusion(known)
    fid = None if inception is None else _frechet(inception)
    with_styles = styles >= 2 and config.style
    first_maps: list[Pixels] = []
    total = 0
    while some := list(islice(examples, batch)):
        images = draw(some, [seed + total + i for i in range(len(some))])
        originals = torch.from_numpy(np.stack([one.image.transpose(2, 0, 1) for one in some]))
        if segment is not None:
            labels = torch.from_numpy(np.stack([one.labels for one in some])).long()  # [N, H, W]
            if label_ids is not None:
                labels = torch.where(torch.isin(labels, torch.tensor(label_ids)), labels, -1)
            generated.add(labels, segment(images))
            real.add(labels, segment(originals))
        if fid is not None:
            fid.update(originals, real=True)
            fid.update(images, real=False)
        if with_styles:
            first_maps += some[: diversity_maps - len(first_maps)]
        total += len(some)
        done(len(some))
    if fid is not None and total < 2:
        raise ValueError(f"[evaluate] expected two images or more for FID but got {total}")
    return Evaluation(
        images=total,
        generated=None if segment is None else generated.scores(names),
        real=None if segment is None else real.scores(names),
        fid=None if fid is None else float(fid.compute()),
        diversity=_diversity(draw, first_maps, styles, seed, features) if with_styles else None,
    )


class _Drawing:
    """Images of examples: the codebook form, rounded as the engines round."""

    def __init__(self, generator: AnyGenerator) -> None:
        self.generator, self.config = generator, generator.config
        self.device = next(generator.parameters()).device
        with torch.inference_mode():
            self.folded = fold_generator(generator)

    def __call__(self, examples: Sequence[Pixels], seeds: Sequence[int]) -> Tensor:
        """Examples of one size -> uint8 [N, 3, H, W] on the CPU."""
        config = self.config
        labels = np.stack([one.labels for one in examples])
        instances = None
        if config.instance_edges:
            instances = np.stack([one.instances for one in examples if one.instances is not None])
        symbols = prepare(labels, instances, config)
        sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)
        levels = level_tensors(plan(symbols, sizes, config.symbols, config.spade_kernel), self.device)
        style = None
        if config.style:
            style = torch.from_numpy(np.stack([style_from_seed(s) for s in seeds])).to(self.device)
        with torch.inference_mode():
            on_device = torch.from_numpy(symbols.astype(np.int32)).to(self.device)
            image = torch.tanh(synthesize_codebook(self.generator, self.folded, on_device, levels, style))
            return ((image + 1) * 127.5).clamp_(0, 255).to(torch.uint8).contiguous().cpu()


def _diversity(
    draw: Draw,
    maps: Sequence[Pixels],
    styles: int,
    seed: int,
    features: Callable[[Tensor], list[Tensor]] | None,
) -> Diversity:
    values = []
    for one in maps:
        images = torch.cat([draw([one], [seed + i]) for i in range(styles)])
        left, right = (list(side) for side in zip(*pairs(styles), strict=True))
        if features is None:
            values.append(pixel_distance(images[left], images[right]))
        else:
            layers = features(images)
            values.append(feature_distance([x[left] for x in layers], [x[right] for x in layers]))
    name = PIXEL_DISTANCE if features is None else FEATURE_DISTANCE
    return Diversity(float(torch.cat(values).mean()), name, len(maps), styles)


def _frechet(inception: InceptionFile) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=inception)
