"""From names on a command line to a running engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import torch

from serving.engines import Engine
from serving.engines.torch import Form, Precision, TorchEngine
from spade_core.checkpoints import Checkpoint, load
from spade_core.config import preset as preset_config
from spade_core.seeded import seeded_encoder, seeded_generator

ENGINES = ("auto", "torch")

log = logging.getLogger(__name__)


def load_checkpoint(weights: Path | None, preset: str) -> Checkpoint:
    """The checkpoint at `weights`, or the preset's seeded, untrained weights where there is none."""
    if weights is not None:
        return load(weights)
    config = preset_config(preset)
    log.warning(
        "no weights given: preset %r runs on seeded, UNTRAINED weights; its images are noise in the layout", preset
    )
    encoder = seeded_encoder(config.nf) if config.style else None
    return Checkpoint(config, seeded_generator(config), encoder, {"trained": "no", "seed": "0"})


def load_engine(
    name: str = "auto",
    weights: Path | None = None,
    preset: str = "demo",
    precision: str = "fp32",
    threads: int | None = None,
    form: str = "codebook",
) -> Engine:
    """The engine called `name`; `auto` takes the best this machine has and logs which. Raises ValueError."""
    if name not in ENGINES:
        raise ValueError(f"[engine] expected an engine out of {', '.join(ENGINES)} but got {name!r}")
    device = "cpu"
    if name == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        log.info("engine auto: torch on %s, %s", device, precision)
    checkpoint = load_checkpoint(weights, preset)
    return TorchEngine(checkpoint.generator, cast(Precision, precision), cast(Form, form), device, threads)
