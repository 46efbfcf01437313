"""Evaluation of a generator: it draws images for label maps, and other networks judge them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spade_core.codebook.entries import level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.plans import plan_levels
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import GeneratorConfig
from spade_core.maps.colours import ColourTable, class_names
from spade_core.maps.label_maps import prepare
from spade_core.models.encoder import StyleEncoder
from spade_core.models.form import AnyGenerator
from spade_core.models.style import style_from_seed
from trainer.data.dataset import read_example
from trainer.data.layouts import find_examples
from trainer.data.preprocess import Pixels, resized
from trainer.evaluation.judges import InceptionFile, Segment
from trainer.evaluation.measures import Looks, Measures, Pooled
from trainer.evaluation.scores import Confusion, LabelScores, feature_distance, pairs, pixel_distance
from trainer.scenes.scene import scene

Draw = Callable[[Sequence[Pixels], Sequence[int]], Tensor]
"""Examples of one size, and a style seed for each -> uint8 images [N, 3, H, W] on the CPU."""
Features = Callable[[Tensor], list[Tensor]]
"""Images uint8 [N, 3, H, W] -> feature maps [N, C, h, w]."""

PIXEL_DISTANCE = "pixel distance: mean absolute difference, 0..1"
FEATURE_DISTANCE = "feature distance: LPIPS without learned weights"


@dataclass(frozen=True)
class Diversity:
    """Mean distance between images of one label map in different styles.

    Attributes:
        distance: the name of the distance.
        maps, styles: number of label maps, and of styles of each map.
    """

    value: float
    distance: str
    maps: int
    styles: int


@dataclass(frozen=True)
class Evaluation:
    """All scores of one run; a score that was not asked for is None.

    Attributes:
        images: number of generated images behind `generated` and `fid`.
        real: the scores of the data set's own images by the same segmentation network: a perfect generator's scores.
    """

    images: int
    generated: LabelScores | None
    real: LabelScores | None
    fid: float | None
    diversity: Diversity | None
    looks: Looks

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain values, for JSON."""
        return asdict(self)


def scene_examples(config: GeneratorConfig, count: int, look: str = "flat") -> Iterator[Pixels]:
    """The first `count` scenes at the model's size. No generator and no judge was trained on these scenes."""
    for seed in range(count):
        drawn = scene(seed, height=config.height, width=config.width, look=look)
        yield Pixels(drawn.labels, drawn.instances if config.instance_edges else None, drawn.image)


def folder_examples(
    config: GeneratorConfig,
    root: Path,
    limit: int | None,
    colours: ColourTable | None = None,
    layout: str = "folder",
) -> tuple[int, Iterator[Pixels]]:
    """The number of examples in a data set of one of training's layouts, and the examples at the model's size.

    `colours` reads label maps in RGB. Raises DataError.
    """
    found = find_examples(layout, root, config)[:limit]
    return len(found), (resized(read_example(one, config, colours), config.height, config.width) for one in found)


@dataclass(frozen=True)
class Judges:
    """The networks that score; each one that is None leaves its score out.

    Attributes:
        segment: for mIoU and pixel accuracy.
        label_ids: labels that `segment` knows; pixels of other labels are not counted. None: all labels.
        inception: for FID.
        features: for diversity; None measures pixels.
        pooled: for the distances of two halves, generated and real.
    """

    segment: Segment | None = None
    label_ids: Sequence[int] | None = None
    inception: InceptionFile | None = None
    features: Features | None = None
    pooled: Pooled | None = None


@dataclass(frozen=True)
class Sampling:
    """Which images are drawn.

    Attributes:
        seed: image i has the style of seed + i, where the generator takes a style.
        batch: images drawn at once.
        styles: styles of each map for diversity; below 2 leaves diversity out.
        diversity_maps: how many maps, from the first on, are drawn for diversity.
    """

    seed: int = 0
    batch: int = 8
    styles: int = 0
    diversity_maps: int = 0


def evaluate(
    generator: AnyGenerator,
    examples: Iterator[Pixels],
    judges: Judges,
    sampling: Sampling,
    done: Callable[[int], None] = lambda _count: None,
    draw: Draw | None = None,
    encoder: StyleEncoder | None = None,
) -> Evaluation:
    """Draw an image for every example and score it.

    Args:
        generator: in eval mode, on the device that draws.
        done: called after each batch with its number of examples.
        draw: draws in place of the generator, such as a file exported from it; None: the generator draws.
        encoder: gives the styles of the real images, which the errors at the border need; in eval mode.

    Raises ValueError for label maps that the model does not know, and for fewer than two images where FID is asked for.
    """
    config = generator.config
    drawing = _Drawing(generator) if draw is None or encoder is not None else None
    draw = draw or drawing
    assert draw is not None
    names, known = class_names(config), config.label_nc
    generated, real, measures = Confusion(known), Confusion(known), Measures(known, judges.pooled)
    fid = None if judges.inception is None else _frechet(judges.inception)
    with_styles = sampling.styles >= 2 and config.style
    first_maps: list[Pixels] = []
    total = 0
    while some := list(islice(examples, sampling.batch)):
        images = draw(some, [sampling.seed + total + i for i in range(len(some))])
        originals = torch.from_numpy(np.stack([one.image.transpose(2, 0, 1) for one in some]))
        if judges.segment is not None:
            labels = _counted_labels(some, judges.label_ids)
            generated.add(labels, judges.segment(images))
            real.add(labels, judges.segment(originals))
        if fid is not None:
            fid.update(originals, real=True)
            fid.update(images, real=False)
        own = None if config.style else images
        if encoder is not None and drawing is not None:
            own = drawing.alike(some, originals, encoder)
        measures.add(images, originals, np.stack([one.labels for one in some]), own)
        if with_styles:
            first_maps += some[: sampling.diversity_maps - len(first_maps)]
        total += len(some)
        done(len(some))
    if fid is not None and total < 2:
        raise ValueError(f"[evaluate] expected two images or more for FID but got {total}")
    return Evaluation(
        images=total,
        generated=None if judges.segment is None else generated.scores(names),
        real=None if judges.segment is None else real.scores(names),
        fid=None if fid is None else float(fid.compute()),
        diversity=_diversity(draw, first_maps, sampling, judges.features) if with_styles else None,
        looks=measures.looks(),
    )


def _counted_labels(examples: Sequence[Pixels], label_ids: Sequence[int] | None) -> Tensor:
    """Label maps int64 [N, H, W], -1 where the label is not among `label_ids`."""
    labels = torch.from_numpy(np.stack([one.labels for one in examples])).long()
    if label_ids is None:
        return labels
    return torch.where(torch.isin(labels, torch.tensor(label_ids)), labels, -1)


class _Drawing:
    """Draws the images of examples by the codebook form, and rounds them as the engines do."""

    def __init__(self, generator: AnyGenerator) -> None:
        self.generator, self.config = generator, generator.config
        self.device = next(generator.parameters()).device
        with torch.inference_mode():
            self.folded = fold_generator(generator)

    def __call__(self, examples: Sequence[Pixels], seeds: Sequence[int]) -> Tensor:
        """Examples of one size -> uint8 [N, 3, H, W] on the CPU."""
        style = None
        if self.config.style:
            style = torch.from_numpy(np.stack([style_from_seed(s) for s in seeds])).to(self.device)
        return self._drawn(examples, style)

    def alike(self, examples: Sequence[Pixels], originals: Tensor, encoder: StyleEncoder) -> Tensor:
        """The examples in the styles of their own images uint8 [N, 3, H, W], which the answer's images are like."""
        with torch.inference_mode():
            mean, _ = encoder(originals.to(self.device).float() / 127.5 - 1)
        return self._drawn(examples, mean)

    def _drawn(self, examples: Sequence[Pixels], style: Tensor | None) -> Tensor:
        config = self.config
        labels = np.stack([one.labels for one in examples])
        instances = None
        if config.instance_edges:
            instances = np.stack([one.instances for one in examples if one.instances is not None])
        symbols = prepare(labels, instances, config)
        levels = level_tensors(plan_levels(symbols, config), self.device)
        with torch.inference_mode():
            on_device = torch.from_numpy(symbols.astype(np.int32)).to(self.device)
            image = torch.tanh(synthesize_codebook(self.generator, self.folded, on_device, levels, style))
            return ((image + 1) * 127.5).clamp_(0, 255).to(torch.uint8).contiguous().cpu()


def _diversity(draw: Draw, maps: Sequence[Pixels], sampling: Sampling, features: Features | None) -> Diversity:
    values, styles = [], sampling.styles
    for one in maps:
        images = torch.cat([draw([one], [sampling.seed + i]) for i in range(styles)])
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
