"""Pickled PyTorch state dicts, read without running any code of the file."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spade_core.files.weights import CheckpointError, first_bytes

# What files that are not weights start with, and what they are.
_NOT_WEIGHTS = {
    b"<": "a web page: download the file itself, not the page about it",
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
}


class ConvertError(CheckpointError):
    """Weights that cannot be converted; the message holds the file, the keys and how to go on."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, by the keys of the plain network.

    `module.` of parallel training and `_orig_mod.` of torch.compile are taken off the keys. Raises ConvertError for any
    other content, and where two keys become one.
    """
    state = _unpickle(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise ConvertError(
            f"[convert] expected a state dict of tensors but got {type(state).__name__} in '{path}'; "
            "save `network.state_dict()`"
        )
    odd = {key: type(value).__name__ for key, value in state.items() if not isinstance(value, Tensor)}
    if odd or not state:
        raise ConvertError(
            f"[convert] expected a state dict of tensors but got {odd or 'an empty one'} in '{path}'; "
            "give the network's own file (latest_net_G.pth), or save the inner state dict by itself"
        )
    plain: dict[str, str] = {}
    for key in state:
        name = _plain_key(key)
        if name in plain:
            raise ConvertError(
                f"[convert] expected one tensor for each key but got '{plain[name]}' and '{key}' for '{name}' in "
                f"'{path}'; save the state dict of one network"
            )
        plain[name] = key
    return {name: state[key] for name, key in plain.items()}


def _plain_key(key: str) -> str:
    """A key without `_orig_mod.`, wherever a compiled module stands, and without `module.` at the start."""
    parts = [part for part in key.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def _unpickle(path: Path) -> Any:
    start = first_bytes(path, 24, "[convert] expected a readable file", ConvertError)
    if start[8:9] == b"{":
        raise ConvertError(
            f"[convert] expected PyTorch weights but got '{path}', a safetensors file; give it to --weights as it is"
        )
    for magic, text in _NOT_WEIGHTS.items():
        if start.lstrip().startswith(magic):
            raise ConvertError(f"[convert] expected PyTorch weights but got '{path}', {text}")
    try:
        # Only zip archives can be mapped into memory; PyTorch before 1.6 wrote none.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(b"PK\x03\x04"))
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|function) (\S+)", str(error))
        if refused is None:
            raise _unreadable(path, error) from None
        raise ConvertError(
            f"[convert] expected tensors only but got an object of {refused[1]} in '{path}'; such a file could run "
            "code, so it is not read: save `network.state_dict()` where you trust it"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ConvertError:
    # PyTorch's text advises loading with weights_only=False, which would run code: pass on its last reason alone.
    cause = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    reason = cause[1] if cause else (str(error).splitlines() or [type(error).__name__])[0]
    return ConvertError(
        f"[convert] expected PyTorch weights but got '{path}' with {path.stat().st_size} bytes, which cannot be read "
        f"({reason}); it is truncated or another kind of file: fetch it again"
    )
