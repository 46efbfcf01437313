"""The averaged networks as a checkpoint to serve; their batch-norm statistics are measured first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from spade_core.files.checkpoints import save
from spade_core.maps.colours import PALETTE, ColourTable, class_palette
from spade_core.models.encoder import StyleEncoder
from spade_core.models.form import AnyGenerator
from spade_core.models.style import STYLES, styles_text
from trainer.config import TrainConfig
from trainer.data.dataset import Batch
from trainer.networks import Networks, sampled_style, synthesize
from trainer.output.scene_styles import scene_styles

_STYLE_SCENES = 2  # of each named style: the weights are written often, and `scene_styles` makes better ones

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@torch.no_grad()
def calibrated(networks: Networks, batches: Iterable[Batch], form: str) -> AnyGenerator:
    """A copy of the averaged generator in eval mode, its batch-norm statistics measured over `batches`.

    The running statistics of the trained generator do not fit the averaged weights, which make other activations. So
    they are measured anew ("standing statistics", Brock et al., ICLR 2019, appendix A). Half of each batch has the
    styles of its images, half has noise as its style.
    """
    generator = deepcopy(networks.average)
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return generator
    generator.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    for batch in batches:
        synthesize(generator, batch, _styles(networks.average_encoder, batch, generator.config.style), form)
    return generator.eval()


def _styles(encoder: StyleEncoder | None, batch: Batch, style: bool) -> Tensor | None:
    if encoder is None:
        return batch.noise if style else None
    mean, log_variance = encoder(batch.images.float() / 127.5 - 1)
    sampled = sampled_style(mean, log_variance, batch.noise)
    half = len(sampled) // 2
    return torch.cat([sampled[:half], batch.noise[half:]])


def export_weights(
    path: Path, generator: AnyGenerator, encoder: StyleEncoder | None, config: TrainConfig, step: int, images: int,
    colours: ColourTable | None,
) -> None:  # fmt: skip
    """Write the checkpoint that `spade serve --weights` loads, with its classes' `colours`. Raises CheckpointError."""
    metadata = {
        "source": "spade train",
        "steps": str(step),
        "images": str(images),
        "data": config.data.layout,
        "seed": str(config.run.seed),
    }
    if colours is not None:
        metadata[PALETTE] = json.dumps(class_palette(config.model, colours).tolist())
    if config.data.layout == "scenes":
        metadata["look"] = config.data.look
    if encoder is not None and config.data.layout == "scenes":
        metadata[STYLES] = styles_text(
            scene_styles(encoder, config.model.height, config.model.width, _STYLE_SCENES, config.data.look)
        )
    save(path, generator, encoder, metadata, dtype=DTYPES[config.run.weights_dtype])
