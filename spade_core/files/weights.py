"""The weights in a checkpoint file as NumPy arrays. Needs no PyTorch; `spade_core.files.checkpoints` makes networks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from kernels.layouts import Array, Float32
from spade_core.config import ARCHITECTURES, ConfigError, GeneratorConfig
from spade_core.files.faults import key_faults, refuse_faults
from spade_core.models.shapes import Shapes, encoder_nf, encoder_shapes, generator_shapes

FORMAT = "1"
RESERVED = "spade."
STATISTICS = (".running_mean", ".running_var")
DTYPES = {"F32": "float32", "BF16": "bfloat16"}  # of safetensors, and their names in PyTorch


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message holds the file, the fault and the fix."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A generator and its style encoder, if it has one, as arrays: what the cpu engine runs.

    Attributes:
        generator, encoder: float32 arrays by key, as `spade_core.models.shapes` lists them; nobody writes to them.
        metadata: free fields (source, class names, ..), strings.
    """

    config: GeneratorConfig
    generator: Mapping[str, Float32]
    encoder: Mapping[str, Float32] | None
    metadata: Mapping[str, str]


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


def read_weights(path: Path) -> Weights:
    """Read a checkpoint that an engine is to run. Raises CheckpointError, naming missing, surplus and misshapen keys.

    The checkpoint of an architecture that no engine runs is refused; `checkpoints.load_any` reads it.
    """

    def shapes(config: GeneratorConfig, _found: Shapes) -> Shapes:
        if not ARCHITECTURES[config.architecture].engines:
            raise CheckpointError(
                f"[load] expected a checkpoint of architecture 'spade' but got {config.architecture!r} in '{path}'; "
                "engines run SPADE only: give a SPADE checkpoint, or evaluate this one with `spade evaluate`"
            )
        return generator_shapes(config)

    return read_any(path, shapes)


def read_any(path: Path, shapes: Callable[[GeneratorConfig, Shapes], Shapes]) -> Weights:
    """Read a checkpoint whose generator has the tensors that `shapes` gives. Raises CheckpointError.

    `shapes` gets the configuration and the shapes in the file, which tell what no configuration tells.
    """
    with _opened(path) as file:
        config, metadata = _header(path, file)
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        dtypes = {key: str(file.get_slice(key).get_dtype()) for key in found}
    expected = {f"generator.{key}": shape for key, shape in shapes(config, _strip(found, "generator.")).items()}
    if of_encoder := _strip(found, "encoder."):
        expected |= {f"encoder.{key}": shape for key, shape in encoder_shapes(encoder_nf(of_encoder)).items()}
    faults = key_faults(found, expected)
    faults += [f"{key} is of dtype {dtype}" for key, dtype in dtypes.items() if dtype not in DTYPES]
    refuse_faults(
        CheckpointError, faults, path,
        "[load] expected the keys of the configuration",
        "the file is not of this configuration: write it again",
    )  # fmt: skip
    arrays = _arrays(path)
    refuse_non_finite("load", str(path), arrays.items())
    return Weights(config, _strip(arrays, "generator."), _strip(arrays, "encoder.") or None, metadata)


def info(path: Path) -> CheckpointInfo:
    """The header of a checkpoint, read in milliseconds; the weights are not checked. Raises CheckpointError."""
    with _opened(path) as file:
        config, metadata = _header(path, file)
        sizes = {"generator": 0, "encoder": 0}
        kinds = set()
        for key in file.keys():  # noqa: SIM118
            part, _, name = key.partition(".")
            view = file.get_slice(key)
            sizes[part] = sizes.get(part, 0) + math.prod(view.get_shape())
            if not name.endswith(STATISTICS):
                kinds.add(str(view.get_dtype()))
    dtype = " and ".join(sorted(DTYPES.get(kind, kind) for kind in kinds))
    return CheckpointInfo(config, metadata, dtype, sizes["generator"], sizes["encoder"])


def refuse_non_finite(op: str, name: str, arrays: Iterable[tuple[str, Array]]) -> None:
    """Raise CheckpointError, naming each key whose array holds NaN or infinity."""
    bad = [key for key, array in arrays if not np.isfinite(array).all()]
    if bad:
        raise CheckpointError(
            f"[{op}] expected finite weights in '{name}' but got NaN or infinity in {', '.join(bad)}; "
            "the training diverged or the file is damaged: take an earlier checkpoint"
        )


def first_bytes(path: Path, count: int, expected: str, error: Callable[[str], Exception]) -> bytes:
    """The first `count` bytes of a file. Raises `error` with the text `expected` when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as fault:
        raise error(f"{expected} but got '{path}': {fault.strerror or fault}; check the path") from None


def _arrays(path: Path) -> dict[str, Float32]:
    """Every tensor of a checked file, copied from it and widened to float32, exactly.

    NumPy has no bfloat16, so the bytes are read here: a length, a JSON header with the place of each tensor, the data.
    """
    arrays = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for key, entry in header.items():
            if key == "__metadata__":
                continue
            file.seek(8 + length + entry["data_offsets"][0])
            stored = np.fromfile(file, "<f4" if entry["dtype"] == "F32" else "<u2", math.prod(entry["shape"]))
            arrays[key] = _widened(stored).reshape(entry["shape"])
    return arrays


def _widened(stored: Array) -> Float32:
    """float32, or the bits of bfloat16, which are the upper half of the bits of float32."""
    return stored if stored.dtype == np.float32 else (stored.astype(np.uint32) << 16).view(np.float32)


def _strip(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _opened(path: Path) -> Any:
    start = first_bytes(path, 9, "[load] expected a readable checkpoint", CheckpointError)
    # A safetensors file starts with the length of its header, eight bytes of any value, and then the header's "{".
    if start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
        raise CheckpointError(
            f"[load] expected a safetensors checkpoint but got '{path}', a PyTorch file; run `spade convert` on it "
            "once, on a machine with PyTorch"
        )
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"[load] expected a whole safetensors file but got '{path}' ({error}); "
            "it is truncated or another kind of file: fetch or write it again"
        ) from None


def _header(path: Path, file: Any) -> tuple[GeneratorConfig, dict[str, str]]:
    metadata: dict[str, str] = dict(file.metadata() or {})
    found = metadata.get(f"{RESERVED}format")
    if found is None:
        raise CheckpointError(
            f"[load] expected '{RESERVED}format' in the header of '{path}' but got {sorted(metadata)}; "
            "this is a safetensors file of another program"
        )
    if found != FORMAT:
        raise CheckpointError(
            f"[load] expected format {FORMAT} but got {found!r} in '{path}'; read it with the version that wrote it"
        )
    try:
        values = json.loads(metadata[f"{RESERVED}config"])
        config = GeneratorConfig.from_dict(values if isinstance(values, dict) else {})
    except (KeyError, json.JSONDecodeError, ConfigError) as error:
        raise CheckpointError(
            f"[load] expected a configuration in the header of '{path}' but got {error!s}; write the file again"
        ) from None
    return config, {k: v for k, v in metadata.items() if not k.startswith(RESERVED)}
