"""Chooses an engine and a precision for this machine, and loads the engine."""

from __future__ import annotations

import ctypes
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kernels.isa import IsaError, input_dtype, supported_isas
from serving.engines.contract import Engine
from serving.engines.cpu.engine import CpuEngine, choose_isa_of
from serving.engines.kept import SESSION_BYTES
from serving.engines.names import ENGINES, PRECISIONS
from spade_core.config import ARCHITECTURES
from spade_core.config import preset as preset_config
from spade_core.files.weights import Weights, info, read_weights
from spade_core.pytorch import has_torch, require_torch

if TYPE_CHECKING:
    from serving.engines.reference import Precision
    from spade_core.files.checkpoints import Checkpoint
    from spade_core.models.form import AnyGenerator

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
    if name == "torch":
        require_torch("engine torch", "take --engine cpu")
    there = _has_cuda()
    device = "cuda" if name == "auto" and there else "cpu"
    if device == "cuda":
        if precision == "int8":
            raise ValueError("[engine] expected fp32, bf16 or fp16 on a CUDA device but got int8; give --engine cpu")
        return _choice("torch", device, precision, "bf16", "there is a CUDA device")
    if precision == "fp16":
        raise ValueError(
            "[engine] expected a CUDA device for precision fp16 but "
            + ("got --engine " + name if there else "found none")
            + "; use bf16 or fp32"
        )
    if name == "torch":
        return _torch_on_cpu(precision, "asked for by name")
    try:
        fastest, isa = _fastest_native() if precision == "auto" else (precision, choose_isa_of(precision))
    except IsaError as error:
        if name == "cpu" or precision == "int8" or not has_torch():  # int8 exists in the cpu engine only
            raise
        return _torch_on_cpu(precision, str(error))
    return _choice("cpu", "cpu", precision, fastest, f"native kernels, isa {isa}")


def _has_cuda() -> bool:
    """Whether PyTorch sees a CUDA device. Without PyTorch none is of use: `auto` never takes `tensorrt`."""
    if not has_torch() or not _may_have_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def _may_have_gpu() -> bool:
    """False where PyTorch would find no device, so that a server on a CPU starts without importing PyTorch: seconds
    and 200 MB less."""
    if "torch" in sys.modules or sys.platform != "linux" or Path("/dev/kfd").exists():  # the last is AMD's driver
        return True
    try:
        ctypes.CDLL("libcuda.so.1")  # NVIDIA's driver
    except OSError:
        return False
    return True


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
    import torch

    warning = ""
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        warning = (
            "bf16 is about ten times slower than fp32 here, since this processor does not multiply in bf16; "
            "use --precision fp32, or auto"
        )
    if precision == "auto":
        precision = "bf16" if any(input_dtype(isa) == "bf16" for isa in supported_isas()) else "fp32"
    return Choice("torch", "cpu", precision, reason, warning)


def choose_for(weights: Path | None, name: str, precision: str) -> Choice:
    """`choose`, for a checkpoint that may hold a network on one-hot maps. Raises CheckpointError too."""
    return _choose_for(weights, name, precision)[0]


def _choose_for(weights: Path | None, name: str, precision: str) -> tuple[Choice, bool]:
    """`choose_for`, and whether the checkpoint holds a network on one-hot maps."""
    choice = choose(name, precision)  # refuses what this machine cannot run before the file is read
    one_hot = _is_one_hot(weights)
    return (choose_one_hot(name, precision) if one_hot else choice), one_hot


def choose_one_hot(name: str, precision: str) -> Choice:
    """The torch engine in float32, which alone runs networks on one-hot maps. Raises ValueError and NoTorchError."""
    if name not in ("auto", "torch") or precision not in ("auto", "fp32"):
        raise ValueError(
            f"[engine] expected engine auto or torch and precision auto or fp32 for a network on one-hot maps but got "
            f"{name} and {precision}; leave both out"
        )
    require_torch("a network on one-hot maps", "give --weights a SPADE checkpoint")
    device = "cuda" if name == "auto" and _has_cuda() else "cpu"
    return Choice("torch", device, "fp32", "a network on one-hot maps")


def _is_one_hot(weights: Path | None) -> bool:
    if weights is None or not weights.is_file():  # who reads a missing file names it
        return False
    return ARCHITECTURES[info(weights).config.architecture].one_hot


def load_weights(weights: Path | None, preset: str, one_hot: bool | None = None) -> Weights:
    """The weights in the file `weights`. Without it, the preset's seeded, untrained weights, and a warning.

    `one_hot`: whether the file holds a network on one-hot maps; None reads that from the file.

    Raises CheckpointError, and NoTorchError for seeded weights where there is no PyTorch.
    """
    if weights is not None and (_is_one_hot(weights) if one_hot is None else one_hot):
        from spade_core.files.checkpoints import read_any_weights

        return read_any_weights(weights)
    if weights is not None:
        return read_weights(weights)
    config = preset_config(preset)
    require_torch(f"preset {preset!r} without --weights, which draws seeded weights,", "give --weights a file")
    from spade_core.files.checkpoints import arrays_of
    from spade_core.models.seeded import seeded_encoder, seeded_generator

    log.warning(UNTRAINED_NOTICE, preset)
    encoder = arrays_of(seeded_encoder(config.nf)) if config.style else None
    return Weights(config, arrays_of(seeded_generator(config)), encoder, {"weights": UNTRAINED, "seed": "0"})


def load_checkpoint(weights: Path | None, preset: str) -> Checkpoint:
    """`load_weights` as PyTorch's networks."""
    from spade_core.files.checkpoints import to_networks

    return to_networks(load_weights(weights, preset))


def start_engine(weights: Weights, choice: Choice, threads: int | None, session_bytes: int = SESSION_BYTES) -> Engine:
    """The chosen engine on a generator's weights. Raises ValueError for weights out of the precision's range.

    `session_bytes`: see `CpuEngine`.
    """
    if ARCHITECTURES[weights.config.architecture].one_hot:
        from serving.engines.one_hot import network_of, one_hot_engine

        return one_hot_engine(network_of(weights), choice.device, threads)
    if choice.engine == "torch":
        from serving.engines.reference import TorchEngine
        from spade_core.files.checkpoints import to_networks

        precision = cast("Precision", choice.precision)
        generator = to_networks(weights).generator
        return TorchEngine(generator, precision, "codebook", choice.device, threads, session_bytes)
    try:
        return CpuEngine(weights, choice.precision, threads, session_bytes=session_bytes)
    except ValueError as error:
        if not choice.fallback or choice.precision == "fp32":
            raise
        log.warning("%s: taking fp32", error)
        return CpuEngine(weights, "fp32", threads, session_bytes=session_bytes)


def make_engine(
    weights: Weights, name: str, precision: str, threads: int | None, session_bytes: int = SESSION_BYTES
) -> Engine:
    """`choose`, then `start_engine`. Logs the choice. Raises TypeError for networks in place of weights."""
    if not isinstance(weights, Weights):
        raise TypeError(
            f"[engine] expected the Weights of a checkpoint but got {type(weights).__name__}; give "
            "spade_core.files.weights.read_weights(path), or to_weights(checkpoint) of spade_core.files.checkpoints"
        )
    one_hot = ARCHITECTURES[weights.config.architecture].one_hot
    choice = choose_one_hot(name, precision) if one_hot else choose(name, precision)
    log.info("%s", choice)
    if choice.warning:
        log.warning("%s", choice.warning)
    return start_engine(weights, choice, threads, session_bytes)


def load_engine(
    name: str = "auto",
    weights: Path | None = None,
    preset: str = "demo",
    precision: str = "auto",
    threads: int | None = None,
    session_bytes: int = SESSION_BYTES,
    network: AnyGenerator | None = None,
) -> Engine:
    """`load_weights`, then `make_engine`; for `tensorrt`, the engine file that `weights` names.

    `network`, on one-hot maps, goes before `weights` and `preset`.

    Raises ValueError, naming what cannot be had, and ImportError for `tensorrt` where its packages are not installed.
    """
    if name == "tensorrt":
        if weights is None:
            raise ValueError("[engine] expected an engine file of `spade export --to tensorrt` but got none")
        from serving.engines.tensorrt.engine import TensorrtEngine

        return TensorrtEngine(weights)
    if network is not None:
        from serving.engines.one_hot import one_hot_engine

        return one_hot_engine(network, choose_one_hot(name, precision).device, threads)
    # Refuses what this machine cannot run before the weights are read.
    _, one_hot = _choose_for(weights, name, precision)
    return make_engine(load_weights(weights, preset, one_hot), name, precision, threads, session_bytes)
