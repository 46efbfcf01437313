"""Checkpoints: one safetensors file with a generator, its style encoder if it has one, and its configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spade_core.config import ARCHITECTURES, ConfigError, GeneratorConfig
from spade_core.files.faults import key_faults, refuse_faults
from spade_core.files.whole_file import write_whole
from spade_core.models.encoder import StyleEncoder
from spade_core.models.form import AnyGenerator
from spade_core.models.generator import Generator
from spade_core.models.registry import new_generator

FORMAT = "1"
_RESERVED = "spade."
_STATISTICS = (".running_mean", ".running_var")
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message holds the file, the fault and the fix."""


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


@dataclass(frozen=True)
class CheckpointInfo:
    """The facts in a checkpoint's header, read without the weights.

    Attributes:
        dtype: of the weights on disk, `float32` or `bfloat16`.
        generator_parameters, encoder_parameters: number of values on disk, running statistics included.
    """

    config: GeneratorConfig
    metadata: dict[str, str]
    dtype: str
    generator_parameters: int
    encoder_parameters: int


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
    wrong = sorted(k for k, v in fields.items() if k.startswith(_RESERVED) or not isinstance(v, str))
    if wrong:
        raise CheckpointError(
            f"[save] expected strings, under keys not in '{_RESERVED}', but got {wrong}; rename, or str()"
        )
    if dtype not in _DTYPES.values():
        raise CheckpointError(f"[save] expected dtype float32 or bfloat16 but got {dtype}; choose one of the two")
    if encoder is not None and not generator.config.style:
        raise CheckpointError(
            "[save] expected no style encoder, since config.style is false, but got one; leave it out"
        )
    tensors: dict[str, Tensor] = {}
    for part, module in _parts(generator, encoder):
        for key, tensor in state_of(module).items():
            keep = torch.float32 if key.endswith(_STATISTICS) else dtype
            tensors[f"{part}.{key}"] = tensor.detach().to("cpu", keep).contiguous()
    refuse_non_finite("save", str(path), tensors)
    header = {f"{_RESERVED}format": FORMAT, f"{_RESERVED}config": json.dumps(generator.config.to_dict())}
    _write(path, tensors, fields | header)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote. Raises CheckpointError, naming missing, surplus and misshapen keys.

    The checkpoint of an architecture that no engine runs is refused; `load_any` reads it.
    """
    generator, encoder, metadata = load_any(path)
    if not ARCHITECTURES[generator.config.architecture].engines:
        raise CheckpointError(
            f"[load] expected a checkpoint of architecture 'spade' but got {generator.config.architecture!r} in "
            f"'{path}'; engines run SPADE only: give a SPADE checkpoint, or evaluate this one with `spade evaluate`"
        )
    assert isinstance(generator, Generator)
    return Checkpoint(generator.config, generator, encoder, metadata)


def load_any(path: Path) -> tuple[AnyGenerator, StyleEncoder | None, dict[str, str]]:
    """Read a checkpoint of any architecture: generator, encoder or None, metadata. Raises CheckpointError."""
    with _opened(path) as file:
        config, metadata = _header(path, file)
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    parts = {part: _strip(tensors, f"{part}.") for part in ("generator", "encoder")}
    stray = sorted(k for k in tensors if not k.startswith(("generator.", "encoder.")))
    with torch.device("meta"):  # `fill` assigns the weights, so none are allocated here
        generator = new_generator(config)
        encoder = StyleEncoder(encoder_nf(parts["encoder"])) if parts["encoder"] else None
    faults = key_faults(parts["generator"], state_of(generator), "generator.")
    if encoder is not None:
        faults += key_faults(parts["encoder"], state_of(encoder), "encoder.")
    faults += [f"surplus {key}" for key in stray]
    faults += [f"{k} is {t.dtype}" for k, t in tensors.items() if t.dtype not in _DTYPES.values()]
    refuse_faults(
        CheckpointError, faults, path,
        "[load] expected the keys of the configuration",
        "the file is not of this configuration: write it again",
    )  # fmt: skip
    refuse_non_finite("load", str(path), tensors)
    for module, part in ((generator, "generator"), (encoder, "encoder")):
        if module is not None:
            fill(module, parts[part])
    return generator, encoder, metadata


def info(path: Path) -> CheckpointInfo:
    """The header of a checkpoint, read in milliseconds; the weights are not checked. Raises CheckpointError."""
    with _opened(path) as file:
        config, metadata = _header(path, file)
        sizes = {"generator": 0, "encoder": 0}
        kinds = set()
        for key in file.keys():  # noqa: SIM118
            part, _, name = key.partition(".")
            view = file.get_slice(key)
            sizes[part] = sizes.get(part, 0) + int(torch.Size(view.get_shape()).numel())
            if not name.endswith(_STATISTICS):
                kinds.add(str(view.get_dtype()))
    dtype = " and ".join(sorted(str(_DTYPES.get(k, k)).removeprefix("torch.") for k in kinds))
    return CheckpointInfo(config, metadata, dtype, sizes["generator"], sizes["encoder"])


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds: all except `num_batches_tracked`, a counter that inference never reads."""
    return {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put checked `tensors`, as float32, into a module made on the meta device, and set it to eval mode.

    The tensors are copied: a tensor mapped from a file changes, or ends the process, when the file changes.
    """
    counts = {k: torch.zeros((), dtype=torch.int64) for k in module.state_dict() if k.endswith("num_batches_tracked")}
    copies = {key: tensor.to(torch.float32, copy=True) for key, tensor in tensors.items()}
    module.load_state_dict(counts | copies, assign=True)
    module.eval()


def encoder_nf(tensors: Mapping[str, Tensor]) -> int:
    """Width of an encoder's first conv, told by its shape, or by the shape of fc_mu, a Linear(8 nf * 16); else 64."""
    first, mean = tensors.get("layer1.0.weight"), tensors.get("fc_mu.weight")
    if first is not None and first.ndim == 4:
        return max(1, first.shape[0])
    return max(1, mean.shape[1] // 128) if mean is not None and mean.ndim == 2 else 64


def refuse_non_finite(op: str, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError, naming each key that holds NaN or infinity."""
    # NumPy, since PyTorch starts its threads for each of hundreds of small tensors, which costs more than the check.
    bad = [key for key, tensor in tensors.items() if not np.isfinite(tensor.detach().float().numpy()).all()]
    if bad:
        raise CheckpointError(
            f"[{op}] expected finite weights in '{name}' but got NaN or infinity in {', '.join(bad)}; "
            "the training diverged or the file is damaged: take an earlier checkpoint"
        )


def _parts(generator: AnyGenerator, encoder: StyleEncoder | None) -> Iterable[tuple[str, nn.Module]]:
    yield "generator", generator
    if encoder is not None:
        yield "encoder", encoder


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    try:
        write_whole(path, lambda draft: save_file(tensors, draft, metadata=header))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"[save] expected to write '{path}' but got {error}; check the folder, its rights and the free space"
        ) from None


def first_bytes(path: Path, count: int, expected: str, error: Callable[[str], Exception]) -> bytes:
    """The first `count` bytes of a file. Raises `error` with the text `expected` when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as fault:
        raise error(f"{expected} but got '{path}': {fault.strerror or fault}; check the path") from None


def _opened(path: Path) -> Any:
    start = first_bytes(path, 9, "[load] expected a readable checkpoint", CheckpointError)
    # A safetensors file starts with the length of its header, eight bytes of any value, and then the header's "{".
    if start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
        raise CheckpointError(
            f"[load] expected a safetensors checkpoint but got '{path}', a PyTorch file; run `spade convert` on it"
        )
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"[load] expected a whole safetensors file but got '{path}' ({error}); "
            "it is truncated or another kind of file: fetch or write it again"
        ) from None


def _header(path: Path, file: Any) -> tuple[GeneratorConfig, dict[str, str]]:
    metadata: dict[str, str] = dict(file.metadata() or {})
    found = metadata.get(f"{_RESERVED}format")
    if found is None:
        raise CheckpointError(
            f"[load] expected '{_RESERVED}format' in the header of '{path}' but got {sorted(metadata)}; "
            "this is a safetensors file of another program"
        )
    if found != FORMAT:
        raise CheckpointError(
            f"[load] expected format {FORMAT} but got {found!r} in '{path}'; read it with the version that wrote it"
        )
    try:
        values = json.loads(metadata[f"{_RESERVED}config"])
        config = GeneratorConfig.from_dict(values if isinstance(values, dict) else {})
    except (KeyError, json.JSONDecodeError, ConfigError) as error:
        raise CheckpointError(
            f"[load] expected a configuration in the header of '{path}' but got {error!s}; write the file again"
        ) from None
    return config, {k: v for k, v in metadata.items() if not k.startswith(_RESERVED)}
