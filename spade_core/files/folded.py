"""Spectral norm and weight norm in a state dict, folded into plain weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from spade_core.files.faults import refuse_faults
from spade_core.files.pickled import ConvertError
from spade_core.models.spectral import SPECTRAL_EPS, folded_weight

# Ends of keys that torch.nn.utils.parametrizations writes, and the ends that older PyTorch writes for the same tensors.
_PARAMETRIZATIONS = {
    ".parametrizations.weight.original": ".weight_orig",  # spectral norm: the weight, u and v
    ".parametrizations.weight.0._u": ".weight_u",
    ".parametrizations.weight.0._v": ".weight_v",
    ".parametrizations.weight.original0": ".weight_g",  # weight norm: the lengths and the directions
    ".parametrizations.weight.original1": ".weight_v",
}


@dataclass(frozen=True)
class Folded:
    """Plain weights.

    Attributes:
        folded: keys of the weights that had spectral norm or weight norm.
        dropped: keys that inference does not need.
    """

    tensors: dict[str, Tensor]
    folded: tuple[str, ...]
    dropped: tuple[str, ...]


def fold_norms(path: Path, state: Mapping[str, Tensor]) -> Folded:
    """Fold spectral norm and weight norm into the weights, in float64.

    Spectral norm: `spade_core.models.spectral.folded_weight`. Old PyTorch saved no `weight_v`: v is then
    normalize(W^T u). Old PyTorch also saved a stale `weight` beside `weight_orig`, which is dropped. Weight norm:
    weight = weight_g * weight_v / |weight_v| (Salimans and Kingma, arXiv 1602.07868, equation 2). Keys of
    torch.nn.utils.parametrizations are understood too.

    Raises ConvertError, naming every conv whose vectors are missing or do not fit.
    """
    state = {_older_key(key): tensor for key, tensor in state.items()}
    tensors: dict[str, Tensor] = {}
    folded, dropped, faults = [], [], []
    for key, tensor in state.items():
        stem, _, suffix = key.rpartition(".")
        name = f"{stem}.weight"
        if suffix == "num_batches_tracked" or (suffix == "weight" and f"{key}_orig" in state):
            dropped.append(key)
        elif suffix in ("weight_u", "weight_v") and (f"{name}_orig" in state or f"{name}_g" in state):
            continue  # read with weight_orig or weight_g
        elif suffix in ("weight_orig", "weight_g"):
            fault = _vector_faults(name, state) if suffix == "weight_orig" else _length_faults(name, state)
            faults += fault
            if not fault:
                spectral = suffix == "weight_orig"
                tensors[name] = _spectral_weight(name, state) if spectral else _normed_weight(name, state)
                folded.append(name)
        else:
            tensors[key] = tensor
    refuse_faults(
        ConvertError, faults, path,
        "[convert] expected the vectors of spectral norm and weight norm beside their weights",
        "the file is not as training saved it: fetch it again",
    )  # fmt: skip
    return Folded(tensors, tuple(folded), tuple(dropped))


def _older_key(key: str) -> str:
    for end, older in _PARAMETRIZATIONS.items():
        if key.endswith(end):
            return key.removesuffix(end) + older
    return key


def _vector_faults(name: str, state: Mapping[str, Tensor]) -> list[str]:
    weight = state[f"{name}_orig"]
    if f"{name}_u" not in state:
        return [f"missing {name}_u"]
    if weight.ndim < 2:
        return [f"{name}_orig is {list(weight.shape)}, not a conv's"]
    wanted = {f"{name}_u": (weight.shape[0],), f"{name}_v": (weight[0].numel(),)}
    found = {key: tuple(state[key].shape) for key in wanted if key in state}
    return [f"{key} is {list(found[key])}, not {list(wanted[key])}" for key in found if found[key] != wanted[key]]


def _spectral_weight(name: str, state: Mapping[str, Tensor]) -> Tensor:
    weight, u = state[f"{name}_orig"].double(), state[f"{name}_u"].double()  # [out, in, k, k], [out]
    saved = state.get(f"{name}_v")
    v = F.normalize(weight.flatten(1).T @ u, dim=0, eps=SPECTRAL_EPS) if saved is None else saved.double()
    return folded_weight(weight, u, v).float()


def _length_faults(name: str, state: Mapping[str, Tensor]) -> list[str]:
    lengths, directions = state[f"{name}_g"], state.get(f"{name}_v")
    if directions is None:
        return [f"missing {name}_v"]
    fits = all(one in (1, size) for one, size in zip(lengths.shape, directions.shape, strict=False))
    if lengths.ndim not in (0, directions.ndim) or not fits:
        wanted = [directions.shape[0], *[1] * (directions.ndim - 1)] if directions.ndim else []
        return [f"{name}_g is {list(lengths.shape)}, not {wanted}"]
    return []


def _normed_weight(name: str, state: Mapping[str, Tensor]) -> Tensor:
    lengths, directions = state[f"{name}_g"].double(), state[f"{name}_v"].double()
    # The lengths have size 1 in every dimension that the norm sums over; a scalar length is the norm of the whole.
    summed = [i for i in range(directions.ndim) if lengths.ndim == 0 or lengths.shape[i] == 1]
    norm = directions.square().sum(summed, keepdim=lengths.ndim > 0).sqrt() if summed else directions.abs()
    return (lengths * directions / norm).float()
