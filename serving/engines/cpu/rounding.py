"""Weights rounded so that their errors cancel: to bf16, and a codebook's to int8.

What a weight reads is much like what its neighbours read, so what one is rounded down, another can make up for. Rounded
each to its nearest, images would be off by 1.6 dB more in bf16, and by 1.8 dB more in int8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.constants import HIDDEN
from kernels.layouts import Float32, Float64, from_storage, to_storage
from kernels.ops.embed import as_bytes, embed_numpy
from kernels.ops.plan import concatenate_patches, plan
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import instance_edges, to_symbols

Patches = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]  # patches3 and patches5, see kernels.ops.plan.Level


# ---- bf16 ----


def round_taps(weight: Float32) -> Float32:
    """Weights [..., k*k] -> the same shape, exact in bf16: what a tap is rounded by goes to the next, line by line."""
    side = round(weight.shape[-1] ** 0.5)
    lines = np.arange(side * side).reshape(side, side)
    lines[1::2] = lines[1::2, ::-1]  # to and fro: each tap beside the one before
    out, carried = np.empty_like(weight), np.zeros_like(weight[..., 0])
    for tap in lines.flat:
        wanted = weight[..., tap] + carried
        out[..., tap] = from_storage(to_storage(wanted, "bf16"))
        carried = wanted - out[..., tap]
    return out


# ---- int8 ----

MAPS, SIZE = 16, 48  # drawn maps, and their height and width
REGIONS = (6, 20, 80, 300)  # of a map: from large regions to what the smallest levels see
REACH = 1.05  # how far hidden rows may exceed those of the drawn maps: bytes beyond 255 are cut off, which shows
EVENNESS = 0.75  # 1: each hidden channel has a unit of its own, and weights pay for the differences; 0: all have one
LARGEST = 127
DAMPING = 3e-3  # of the mean of the moments' diagonal, for directions that the drawn maps have not
TOGETHER = 32  # rows that are rounded before their errors go to all the others at once


@dataclass(frozen=True, eq=False)
class Rounded:
    """A norm's codebook in int8.

    Attributes:
        table, shared_bias: of the embed, in units that make its hidden rows 0..255.
        weight: int8 [k*k * 128, 2C]. scale: float32 [2C]: entries = bias + scale * (bytes @ weight).
        interior: float32 [symbols, 2C], not rounded: the entry of a patch that is one symbol all over.
    """

    table: Float32
    shared_bias: Float32
    weight: npt.NDArray[np.int8]
    scale: Float32
    interior: Float32


def drawn_patches(config: GeneratorConfig) -> Patches:
    """The patches of drawn maps, each of a number of regions of random classes. The same every time."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    regions = np.empty((MAPS, SIZE, SIZE), np.int32)
    labels = np.empty((MAPS, SIZE, SIZE), np.uint8)
    for n in range(MAPS):
        count = REGIONS[n % len(REGIONS)]
        centres = random.uniform(0, SIZE, (2, count, 1, 1))
        regions[n] = ((y - centres[0]) ** 2 + (x - centres[1]) ** 2).argmin(axis=0)  # of the nearest centre
        labels[n] = random.integers(0, config.classes, count)[regions[n]]
    # Regions of the first maps are instances, as things are; those of the others have no edges, as stuff.
    regions[MAPS // 2 :] = 0
    edges = instance_edges(regions) if config.instance_edges else None
    symbols = to_symbols(labels, edges, config)
    return concatenate_patches(
        [plan(one[None], [(SIZE, SIZE)], config.symbols, config.spade_kernel)[0] for one in symbols]
    )


def round_codebook(table: Float32, shared_bias: Float32, weight: Float32, bias: Float32, drawn: Patches) -> Rounded:
    """Rounds the codebook of a norm.

    Args:
        table: [k*k, symbols + 1, 128]. shared_bias: [128].
        weight: [k*k * 128, 2C]. bias: [2C].
        drawn: `drawn_patches` of the model.
    """
    patches3, patches5 = drawn
    hidden = embed_numpy(table, shared_bias, patches3, relu=True, zero_row=True)  # [U3 + 1, 128]
    unit = _units(hidden)
    rows = torch.from_numpy(as_bytes(hidden / unit)).float()[torch.from_numpy(patches5)].flatten(1)  # [U5, k*k * 128]
    scaled = torch.from_numpy(weight * np.tile(unit, len(table))[:, None].astype(np.float32))
    rounded, scale = round_weights(scaled, rows.T @ rows / len(rows))
    return Rounded(
        (table / unit).astype(np.float32),
        (shared_bias / unit).astype(np.float32),
        rounded.numpy(),
        scale.numpy(),
        interior(table, shared_bias, weight, bias),
    )


def _units(hidden: Float64) -> Float64:
    """What one step of a byte is worth in each channel of hidden rows [U3 + 1, 128]."""
    largest = np.maximum(hidden.max(axis=0), 1e-30)
    units: Float64 = largest**EVENNESS * largest.max() ** (1 - EVENNESS) * REACH / 255
    return units


def interior(table: Float32, shared_bias: Float32, weight: Float32, bias: Float32) -> Float32:
    """The entry [symbols, 2C] of a patch that is one symbol all over: all taps see the same hidden row."""
    hidden = np.maximum(shared_bias + table[:, :-1].sum(axis=0), 0)  # [symbols, 128]
    out: Float32 = hidden @ weight.reshape(len(table), HIDDEN, -1).sum(axis=0) + bias
    return out


def round_weights(weight: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [K, N] -> int8 [K, N] and scale [N], for inputs x [K] of moments E[x x^T] [K, K].

    One row after the other is rounded, and what it was rounded by is spread over those still to come as least squares
    has it (Frantar et al., GPTQ, 2022, algorithm 1).
    """
    scale = weight.abs().amax(0).clamp_min(1e-30) / (LARGEST - 1)  # and one for what other rows leave to it
    order = moment.diagonal().argsort(descending=True)
    moment = moment[order][:, order].double()
    moment += DAMPING * moment.diagonal().mean().clamp_min(1e-30) * torch.eye(len(moment), dtype=moment.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    spread = torch.linalg.cholesky(inverse, upper=True).float()
    spread = spread / spread.diagonal()[:, None]
    left = weight[order] / scale
    rounded = torch.empty_like(left)
    for first in range(0, len(left), TOGETHER):
        last = min(first + TOGETHER, len(left))
        errors = torch.empty_like(left[first:last])
        for i in range(first, last):
            rounded[i] = left[i].round().clamp(-LARGEST, LARGEST)
            torch.sub(left[i], rounded[i], out=errors[i - first])
            left[i + 1 : last].addr_(spread[i, i + 1 : last], errors[i - first], alpha=-1)
        left[last:] -= spread[first:last, last:].T @ errors
    out = torch.empty(weight.shape, dtype=torch.int8)
    out[order] = rounded.to(torch.int8)
    return out, scale
