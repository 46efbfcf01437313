"""Checkpoints: one safetensors file with a generator, its style encoder if it has one, and its configuration.

Here the networks are PyTorch's. `spade_core.files.weights` reads the same files without PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from kernels.layouts import Float32
from spade_core.config import GeneratorConfig
from spade_core.files import weights
from spade_core.files.faults import shapes_of
from spade_core.files.weights import FORMAT, RESERVED, STATISTICS, CheckpointError, Weights, read_any, read_weights
from spade_core.files.whole_file import write_whole
from spade_core.models.encoder import StyleEncoder
from spade_core.models.form import AnyGenerator
from spade_core.models.generator import Generator
from spade_core.models.registry import new_generator
from spade_core.models.shapes import Shapes, encoder_nf

_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file, ready to run: modules in eval mode, float32, on the CPU.

    Attributes:
        metadata: free fields (source, class names, ..), strings.
    """

    config: GeneratorConfig
    generator: Generator
    encoder: StyleEncoder | None
    metadata: dict[str, str]


def save(
    path: Path,
    generator: AnyGenerator,
    encoder: StyleEncoder | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint, whole or not at all: weights as `dtype` (float32 or bfloat16), running statistics as float32.

    Raises CheckpointError.
    """
    fields = dict(metadata or {})
    wrong = sorted(k for k, v in fields.items() if k.startswith(RESERVED) or not isinstance(v, str))
    if wrong:
        raise CheckpointError(
            f"[save] expected strings, under keys not in '{RESERVED}', but got {wrong}; rename, or str()"
        )
    if dtype not in _DTYPES:
        raise CheckpointError(f"[save] expected dtype float32 or bfloat16 but got {dtype}; choose one of the two")
    if encoder is not None and not generator.config.style:
        raise CheckpointError(
            "[save] expected no style encoder, since config.style is false, but got one; leave it out"
        )
    tensors: dict[str, Tensor] = {}
    for part, module in _parts(generator, encoder):
        for key, tensor in state_of(module).items():
            keep = torch.float32 if key.endswith(STATISTICS) else dtype
            tensors[f"{part}.{key}"] = tensor.detach().to("cpu", keep).contiguous()
    refuse_non_finite("save", str(path), tensors)
    header = {f"{RESERVED}format": FORMAT, f"{RESERVED}config": json.dumps(generator.config.to_dict())}
    _write(path, tensors, fields | header)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote. Raises CheckpointError, naming missing, surplus and misshapen keys.

    The checkpoint of an architecture that no engine runs is refused; `load_any` reads it.
    """
    return to_networks(read_weights(path))


def load_any(path: Path) -> tuple[AnyGenerator, StyleEncoder | None, dict[str, str]]:
    """Read a checkpoint of any architecture: generator, encoder or None, metadata. Raises CheckpointError."""
    found = read_any_weights(path)
    return *_networks(found), dict(found.metadata)


def read_any_weights(path: Path) -> Weights:
    """Read the arrays of a checkpoint of any architecture. Raises CheckpointError."""

    def shapes(config: GeneratorConfig, found: Shapes) -> Shapes:
        with torch.device("meta"):
            return shapes_of(state_of(new_generator(config, found)))

    return read_any(path, shapes)


def to_networks(found: Weights) -> Checkpoint:
    """The networks of the weights of a SPADE generator. The networks share the memory of the arrays.

    Raises CheckpointError for another architecture.
    """
    generator, encoder = _networks(found)
    if not isinstance(generator, Generator):
        raise CheckpointError(
            f"[load] expected weights of architecture 'spade' but got {found.config.architecture!r}; only "
            "`spade serve`, `spade synthesize` and `spade evaluate` run those"
        )
    return Checkpoint(found.config, generator, encoder, dict(found.metadata))


def to_generator(found: Weights) -> AnyGenerator:
    """The generator of weights of any architecture. It shares the memory of the arrays."""
    return _networks(found)[0]


def to_weights(checkpoint: Checkpoint) -> Weights:
    """The inverse of `to_networks`. The arrays share the memory of float32 networks on the CPU."""
    encoder = None if checkpoint.encoder is None else arrays_of(checkpoint.encoder)
    return Weights(checkpoint.config, arrays_of(checkpoint.generator), encoder, checkpoint.metadata)


def arrays_of(module: nn.Module) -> dict[str, Float32]:
    """The tensors that a checkpoint holds, as float32 arrays. They share the memory of a float32 module on the CPU."""
    return {key: tensor.detach().to("cpu", torch.float32).numpy() for key, tensor in state_of(module).items()}


def _networks(found: Weights) -> tuple[AnyGenerator, StyleEncoder | None]:
    with torch.device("meta"):  # weights are assigned, so none are allocated here
        generator = new_generator(found.config, shapes_of(found.generator))
        encoder = None if found.encoder is None else StyleEncoder(encoder_nf(shapes_of(found.encoder)))
    _assign(generator, {key: torch.from_numpy(array) for key, array in found.generator.items()})
    if encoder is not None and found.encoder is not None:
        _assign(encoder, {key: torch.from_numpy(array) for key, array in found.encoder.items()})
    return generator, encoder


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds: all except `num_batches_tracked`, a counter that inference never reads."""
    return {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put checked `tensors`, as float32, into a module made on the meta device, and set it to eval mode.

    The tensors are copied: a tensor mapped from a file changes, or ends the process, when the file changes.
    """
    _assign(module, {key: tensor.to(torch.float32, copy=True) for key, tensor in tensors.items()})


def _assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    counts = {k: torch.zeros((), dtype=torch.int64) for k in module.state_dict() if k.endswith("num_batches_tracked")}
    module.load_state_dict(counts | dict(tensors), assign=True)
    module.eval()


def refuse_non_finite(op: str, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError, naming each key that holds NaN or infinity."""
    # NumPy, since PyTorch starts its threads for each of hundreds of small tensors, which costs more than the check.
    weights.refuse_non_finite(op, name, ((key, tensor.detach().float().numpy()) for key, tensor in tensors.items()))


def _parts(generator: AnyGenerator, encoder: StyleEncoder | None) -> Iterable[tuple[str, nn.Module]]:
    yield "generator", generator
    if encoder is not None:
        yield "encoder", encoder


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    try:
        write_whole(path, lambda draft: save_file(tensors, draft, metadata=header))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"[save] expected to write '{path}' but got {error}; check the folder, its rights and the free space"
        ) from None
