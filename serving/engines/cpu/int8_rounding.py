"""Rounds the weights of a codebook to int8 so that their errors cancel.

The inputs of a codebook are similar, so each rounding error is spread over the weights that follow (error diffusion).
Rounding each weight to the nearest value instead costs 1.8 dB of PSNR. All sums are in float64, so that machines whose
NumPy adds in another order round to the same int8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.constants import HIDDEN
from kernels.layouts import Float32, Float64
from kernels.ops.embed import as_bytes, embed_numpy
from serving.engines.cpu.rounding import Patches

REACH = 1.05  # headroom of hidden rows over the largest of the drawn maps: a byte above 255 is clipped, visibly
EVENNESS = 0.75  # 1: every hidden channel has its own unit, at the cost of the weights' range; 0: one unit for all
LARGEST = 127
DAMPING = 3e-3  # share of the mean diagonal added to the moments, for directions that no drawn map has
TOGETHER = 32  # rows rounded before their errors are spread over all later rows at once


@dataclass(frozen=True, eq=False)
class Rounded:
    """A norm's codebook in int8: entries = bias + scale * (bytes @ weight).

    Attributes:
        table, shared_bias: weights of the embed, in units that make its hidden rows 0..255.
        weight: int8 [k*k * 128, 2C].
        scale: float32 [2C].
        interior: float32 [symbols, 2C], exact: the entry of a patch that holds one symbol only.
    """

    table: Float32
    shared_bias: Float32
    weight: npt.NDArray[np.int8]
    scale: Float32
    interior: Float32


def round_codebook(table: Float32, shared_bias: Float32, weight: Float32, bias: Float32, drawn: Patches) -> Rounded:
    """Round the codebook of one norm to int8.

    Args:
        table: [k*k, symbols + 1, 128] of the embed, with its shared_bias [128].
        weight: [k*k * 128, 2C] of the codebook, with its bias [2C].
        drawn: the result of `drawn_patches`.
    """
    patches3, patches5 = drawn
    hidden = embed_numpy(table, shared_bias, patches3, relu=True, zero_row=True)  # [U3 + 1, 128]
    unit = _units(hidden)
    rows = as_bytes(hidden / unit).astype(np.float64)[patches5].reshape(len(patches5), -1)  # [U5, k*k * 128]
    scaled = weight * np.tile(unit, len(table))[:, None].astype(np.float32)
    rounded, scale = round_weights(scaled, rows.T @ rows / len(rows))
    return Rounded(
        (table / unit).astype(np.float32),
        (shared_bias / unit).astype(np.float32),
        rounded,
        scale,
        interior(table, shared_bias, weight, bias),
    )


def _units(hidden: Float64) -> Float64:
    """The value of one step of a byte in each channel of hidden rows [U3 + 1, 128]."""
    largest = np.maximum(hidden.max(axis=0), 1e-30)
    units: Float64 = largest**EVENNESS * largest.max() ** (1 - EVENNESS) * REACH / 255
    return units


def interior(table: Float32, shared_bias: Float32, weight: Float32, bias: Float32) -> Float32:
    """The entry [symbols, 2C] of a patch that holds one symbol only: all taps read the same hidden row."""
    hidden = np.maximum(shared_bias + table[:, :-1].sum(axis=0), 0)  # [symbols, 128]
    out: Float32 = hidden @ weight.reshape(len(table), HIDDEN, -1).sum(axis=0) + bias
    return out


def round_weights(weight: Float32, moment: Float64) -> tuple[npt.NDArray[np.int8], Float32]:
    """Weights [K, N] -> int8 [K, N] and scale [N], for inputs x [K] with the moments E[x x^T] [K, K].

    Rounds row after row and spreads each rounding error over the rows that follow, by least squares (Frantar et al.,
    GPTQ, 2022, algorithm 1).
    """
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-30) / (LARGEST - 1)  # a step of headroom for others' errors
    order = np.argsort(-moment.diagonal(), kind="stable")
    spread = _spread(moment[np.ix_(order, order)])
    left = weight[order].astype(np.float64) / scale
    rounded = np.empty_like(left)
    for first in range(0, len(left), TOGETHER):
        last = min(first + TOGETHER, len(left))
        errors = np.empty_like(left[first:last])
        for i in range(first, last):
            rounded[i] = left[i].round().clip(-LARGEST, LARGEST)
            errors[i - first] = left[i] - rounded[i]
            left[i + 1 : last] -= spread[i, i + 1 : last, None] * errors[i - first]
        left[last:] -= spread[first:last, last:].T @ errors
    out = np.empty(weight.shape, np.int8)
    out[order] = rounded
    return out, scale.astype(np.float32)


def _spread(moment: Float64) -> Float64:
    """The share [K, K] of a row's rounding error that each later row takes."""
    moment = moment + DAMPING * max(moment.diagonal().mean(), 1e-30) * np.eye(len(moment))
    upper = np.linalg.cholesky(np.linalg.inv(moment)).T
    spread: Float64 = upper / upper.diagonal()[:, None]
    return spread
