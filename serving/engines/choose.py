"""Chooses an engine and a precision for this machine, and loads the engine."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from kernels.isa import IsaError, input_dtype, supported_isas
from serving.engines.contract import Engine
from serving.engines.cpu.engine import CpuEngine, choose_isa_of
from serving.engines.names import ENGINES, PRECISIONS
from serving.engines.reference import Precision, TorchEngine
from spade_core.config import preset as preset_config
from spade_core.files.checkpoints import Checkpoint, load
from spade_core.models.seeded import seeded_encoder, seeded_generator

UNTRAINED = "untrained"  # the value of the metadata field `weights` of seeded checkpoints
UNTRAINED_NOTICE = "no weights given: preset %r runs on seeded, UNTRAINED weights and paints noise, not a scene"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The engine, device and precision that run a checkpoint on this machine.

    Attributes:
        engine: `torch` or `cpu`.
        device: `cpu` or `cuda`.
        precision: `fp32`, `bf16`, `int8` or `fp16`.
        reason: why this machine gets this engine.
        warning: why the precision is slow here and which one is fast; empty for a fast one.
        fallback: take fp32 where the weights are out of the precision's range, since nobody asked for the precision.
    """

    engine: str
    device: str
    precision: str
    reason: str
    warning: str = ""
    fallback: bool = False

    def __str__(self) -> str:
        return f"engine {self.engine} on {self.device}, {self.precision}: {self.reason}"


def choose(name: str = "auto", precision: str = "auto") -> Choice:
    """The engine and precision for this machine, before any weights are read.

    `auto` as precision is bf16 where the machine multiplies in bf16, else fp32. int8 is never chosen by `auto`: the
    worst pixel is further from float32 than in bf16. Raises ValueError and IsaError for what this machine cannot run.
    """
    if name not in ENGINES:
        raise ValueError(f"[engine] expected an engine out of {', '.join(ENGINES)} but got {name!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"[engine] expected a precision out of {', '.join(PRECISIONS)} but got {precision!r}")
    device = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if precision == "int8":
            raise ValueError("[engine] expected fp32, bf16 or fp16 on a CUDA device but got int8; give --engine cpu")
        return _choice("torch", device, precision, "bf16", "there is a CUDA device")
    if precision == "fp16":
        raise ValueError(
            "[engine] expected a CUDA device for precision fp16 but "
            + ("got --engine " + name if torch.cuda.is_available() else "found none")
            + "; use bf16 or fp32"
        )
    if name == "torch":
        return _torch_on_cpu(precision, "asked for by name")
    try:
        fastest, isa = _fastest_native() if precision == "auto" else (precision, choose_isa_of(precision))
    except IsaError as error:
        if name == "cpu" or precision == "int8":  # int8 exists in the cpu engine only
            raise
        return _torch_on_cpu(precision, str(error))
    return _choice("cpu", "cpu", precision, fastest, f"native kernels, isa {isa}")


def _choice(engine: str, device: str, asked: str, fastest: str, reason: str) -> Choice:
    return Choice(engine, device, fastest if asked == "auto" else asked, reason, fallback=asked == "auto")


def _fastest_native() -> tuple[str, str]:
    try:
        return "bf16", choose_isa_of("bf16")
    except IsaError:
        return "fp32", choose_isa_of("fp32")


def _torch_on_cpu(precision: str, reason: str) -> Choice:
    if precision == "int8":
        raise ValueError("[engine] expected fp32 or bf16 for --engine torch on a CPU but got int8; use bf16")
    warning = ""
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        warning = (
            "bf16 is about ten times slower than fp32 here, since this processor does not multiply in bf16; "
            "use --precision fp32, or auto"
        )
    if precision == "auto":
        precision = "bf16" if any(input_dtype(isa) == "bf16" for isa in supported_isas()) else "fp32"
    return Choice("torch", "cpu", precision, reason, warning)


def load_checkpoint(weights: Path | None, preset: str) -> Checkpoint:
    """The checkpoint at `weights`. Without `weights`, the preset's seeded, untrained weights, and a warning."""
    if weights is not None:
        return load(weights)
    config = preset_config(preset)
    log.warning(UNTRAINED_NOTICE, preset)
    encoder = seeded_encoder(config.nf) if config.style else None
    return Checkpoint(config, seeded_generator(config), encoder, {"weights": UNTRAINED, "seed": "0"})


def start_engine(checkpoint: Checkpoint, choice: Choice, threads: int | None) -> Engine:
    """The chosen engine on a checkpoint's generator. Raises ValueError for weights out of the precision's range."""
    if choice.engine == "torch":
        precision = cast(Precision, choice.precision)
        return TorchEngine(checkpoint.generator, precision, "codebook", choice.device, threads)
    try:
        return CpuEngine(checkpoint.generator, choice.precision, threads)
    except ValueError as error:
        if not choice.fallback or choice.precision == "fp32":
            raise
        log.warning("%s: taking fp32", error)
        return CpuEngine(checkpoint.generator, "fp32", threads)


def make_engine(checkpoint: Checkpoint, name: str, precision: str, threads: int | None) -> Engine:
    """`choose`, then `start_engine`. Logs the choice."""
    choice = choose(name, precision)
    log.info("%s", choice)
    if choice.warning:
        log.warning("%s", choice.warning)
    return start_engine(checkpoint, choice, threads)


def load_engine(
    name: str = "auto",
    weights: Path | None = None,
    preset: str = "demo",
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """`load_checkpoint`, then `make_engine`; for `tensorrt`, the engine file that `weights` names.

    Raises ValueError, naming what cannot be had, and ImportError for `tensorrt` where its packages are not installed.
    """
    if name == "tensorrt":
        if weights is None:
            raise ValueError("[engine] expected an engine file of `spade export --to tensorrt` but got none")
        from serving.engines.tensorrt.engine import TensorrtEngine

        return TensorrtEngine(weights)
    choose(name, precision)  # refuses what this machine cannot run before the weights are read
    return make_engine(load_checkpoint(weights, preset), name, precision, threads)
