"""Sample grids of a run: fixed label maps, their real images, and the averaged generator's images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from spade_core.maps.colours import class_palette, draw
from spade_core.models.form import AnyGenerator
from spade_core.models.style import style_from_seed
from spade_core.types import Image
from trainer.config import TrainConfig
from trainer.data.dataset import Batch, Stream, collate, scene_pixels
from trainer.data.layouts import find_examples
from trainer.networks import Networks, synthesize

STYLE_SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Samples:
    """The examples of every grid: a batch, its label maps as colours and its real images, [N, H, W, 3] each."""

    batch: Batch
    maps: npt.NDArray[np.uint8]
    images: npt.NDArray[np.uint8]


def choose_samples(stream: Stream, config: TrainConfig) -> Samples:
    """`run.samples` examples, not mirrored: scenes that are never trained on, or examples spread over the held-out set.

    Without a held-out set they are spread over the training set.
    """
    count, items, held_out = config.run.samples, [], config.validation.root
    examples = find_examples(config.data.layout, Path(held_out), config.model) if held_out else stream.examples
    # All images of a grid have one size, whatever the sizes in the data set.
    mode = config.data.preprocess if config.data.preprocess.endswith("crop") else "fixed"
    for i in range(count):
        random = np.random.default_rng([config.run.seed, i, 0x5A])
        if examples:
            items.append(stream.example(examples[i * len(examples) // count], mode, False, random))
        else:
            items.append(stream.item(scene_pixels(i, config.data, config.model), mode, False, random))
    maps = draw(np.stack([one.labels for one in items]), class_palette(config.model, stream.colours))
    planned = config.networks.form == "codebook"
    return Samples(collate(items, config.model, planned), maps, np.stack([one.image for one in items]))


@torch.no_grad()
def sample_grid(samples: Samples, generator: AnyGenerator, networks: Networks, config: TrainConfig) -> Image:
    """A grid with a column for each label map.

    Rows: the map, its real image, an image in the real image's style, and images in the styles of three seeds. Without
    a style encoder the third row is left out; without styles there is one row of drawn images.
    """
    device = next(generator.parameters()).device
    batch = samples.batch.to(device)
    rows = [samples.maps, samples.images]
    if networks.average_encoder is not None:
        mean, _ = networks.average_encoder(batch.images.float() / 127.5 - 1)
        rows.append(_drawn(generator, batch, mean, config))
    if not config.model.style:
        rows.append(_drawn(generator, batch, None, config))
    else:
        for seed in STYLE_SEEDS:
            style = torch.from_numpy(style_from_seed(seed)).to(device).expand(len(batch.symbols), -1)
            rows.append(_drawn(generator, batch, style, config))
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def _drawn(
    generator: AnyGenerator, batch: Batch, style: torch.Tensor | None, config: TrainConfig
) -> npt.NDArray[np.uint8]:
    images = synthesize(generator, batch, style, config.networks.form)  # [N, 3, H, W]
    pixels: npt.NDArray[np.uint8] = ((images + 1) * 127.5).clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels.transpose(0, 2, 3, 1)
