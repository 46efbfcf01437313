"""Checkpoints of a run: networks, averages and Adam in safetensors, whole or absent, in one file or in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from spade_core.files.checkpoints import refuse_non_finite
from spade_core.files.faults import key_faults, refuse_faults, shapes_of
from trainer.networks import Networks
from trainer.output.parts import read_parts, remove_orphans, remove_parts, write_parts
from trainer.training import Optimisers

_NAME = re.compile(r"^step-(\d{8})\.safetensors$")
FORMAT = "1"


class StateError(ValueError):
    """A checkpoint that cannot be written or resumed from; the message holds the file, the fault and the fix."""


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) of the checkpoints in a folder, oldest first."""
    found = [(int(m[1]), p) for p in folder.glob("step-*.safetensors") if (m := _NAME.match(p.name))]
    return sorted(found)


def save_state(
    folder: Path, networks: Networks, optimisers: Optimisers, step: int, images: int, keep: int, part_mb: int = 0
) -> Path:
    """Write the checkpoint of `step`; then remove all but the last `keep`, and unfinished files of a killed run.

    Where `part_mb` is given, a checkpoint is in files of at most that many megabytes.

    A process killed at any moment keeps its earlier checkpoints. Raises StateError. Raises CheckpointError for weights
    that are not finite: they must not push finite checkpoints out.
    """
    path = folder / f"step-{step:08d}.safetensors"
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in _tensors(networks, optimisers)}
    refuse_non_finite("train", str(path), tensors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "step": str(step), "images": str(images)}
        write_parts(path, tensors, header, part_mb)
    except (OSError, SafetensorError) as error:
        raise StateError(
            f"[train] expected to write '{path}' but got {error}; check the folder, its rights and the free space"
        ) from None
    for _, old in checkpoints(folder)[:-keep]:
        remove_parts(old)
    remove_orphans(folder)
    for draft in folder.glob(".step-*.tmp"):
        draft.unlink()
    return path


def load_state(path: Path, networks: Networks, optimisers: Optimisers) -> tuple[int, int]:
    """Fill networks and optimisers from a checkpoint; returns (step, images). Raises StateError."""
    try:
        header, found = read_parts(path)
    except (OSError, SafetensorError) as error:
        raise StateError(
            f"[train] expected a whole checkpoint but got '{path}' ({error}); delete it to resume from the one before"
        ) from None
    if header.get("format") != FORMAT:
        raise StateError(f"[train] expected format {FORMAT} but got {header.get('format')!r} in '{path}'")
    _start_adam(optimisers)
    wanted = dict(_tensors(networks, optimisers))
    refuse_faults(
        StateError, key_faults(shapes_of(found), shapes_of(wanted)), path,
        "[train] expected the networks of the configuration",
        "give another run.out, or the configuration this run was started with",
    )  # fmt: skip
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(found[key])
    return int(header["step"]), int(header["images"])


def _tensors(networks: Networks, optimisers: Optimisers) -> Iterator[tuple[str, Tensor]]:
    for name, module in networks.everything():
        for key, tensor in module.state_dict().items():
            yield f"{name}.{key}", tensor
    for name, optimiser in optimisers.items():
        numbered = [p for group in optimiser.param_groups for p in group["params"]]
        for i, parameter in enumerate(numbered):
            for key, tensor in optimiser.state.get(parameter, {}).items():
                yield f"adam.{name}.{i}.{key}", tensor


def _start_adam(optimisers: Optimisers) -> None:
    """Make Adam's state, which Adam itself makes in its first step: loading needs the state before."""
    for _, optimiser in optimisers.items():
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                optimiser.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }
