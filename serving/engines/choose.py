"""From names on a command line to a running engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import torch

from kernels.isa import IsaError
from serving.engines.contract import ENGINES, Engine
from serving.engines.cpu.engine import CpuEngine, choose_isa_of
from serving.engines.reference import Precision, TorchEngine
from spade_core.config import preset as preset_config
from spade_core.files.checkpoints import Checkpoint, load
from spade_core.models.seeded import seeded_encoder, seeded_generator

UNTRAINED = "untrained"  # the value of the metadata field `weights` of seeded checkpoints
UNTRAINED_NOTICE = "no weights given: preset %r runs on seeded, UNTRAINED weights and paints noise, not a scene"

log = logging.getLogger(__name__)


def load_checkpoint(weights: Path | None, preset: str) -> Checkpoint:
    """The checkpoint at `weights` or, without one, the preset's seeded, untrained weights, which the log says."""
    if weights is not None:
        return load(weights)
    config = preset_config(preset)
    log.warning(UNTRAINED_NOTICE, preset)
    encoder = seeded_encoder(config.nf) if config.style else None
    return Checkpoint(config, seeded_generator(config), encoder, {"weights": UNTRAINED, "seed": "0"})


def make_engine(checkpoint: Checkpoint, name: str, precision: str, threads: int | None) -> Engine:
    """The engine called `name` on a checkpoint's generator; `auto` takes the best there is and logs which.

    Raises ValueError for a name or a precision there is not, IsaError for `cpu` on a processor without its kernels.
    """
    if name not in ENGINES:
        raise ValueError(f"[engine] expected an engine out of {', '.join(ENGINES)} but got {name!r}")
    device = "cpu"
    if name == "auto":
        name, device, reason = _choose(precision)
        log.info("engine auto: %s on %s, %s: %s", name, device, precision, reason)
    if name == "cpu":
        return CpuEngine(checkpoint.generator, precision, threads)
    return TorchEngine(checkpoint.generator, cast(Precision, precision), "codebook", device, threads)


def _choose(precision: str) -> tuple[str, str, str]:
    """(engine, device, why) for this machine."""
    if torch.cuda.is_available():
        return "torch", "cuda", "there is a CUDA device"
    try:
        isa = choose_isa_of(precision)
    except IsaError as error:
        if precision == "int8":  # which no other engine has
            raise
        return "torch", "cpu", str(error)
    return "cpu", "cpu", f"native kernels, isa {isa}"


def load_engine(
    name: str = "auto",
    weights: Path | None = None,
    preset: str = "demo",
    precision: str = "fp32",
    threads: int | None = None,
) -> Engine:
    """`load_checkpoint`, then `make_engine`; for `tensorrt`, the engine file that `weights` names.

    Raises ValueError, naming what cannot be had, and ImportError for `tensorrt` where its packages are not installed.
    """
    if name == "tensorrt":
        if weights is None:
            raise ValueError("[engine] expected an engine file of `spade export --to tensorrt` but got none")
        from serving.engines.tensorrt import TensorrtEngine

        return TensorrtEngine(weights)
    return make_engine(load_checkpoint(weights, preset), name, precision, threads)
