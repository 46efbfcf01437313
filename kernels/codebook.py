"""Codebook: (a, b) of every distinct patch. The specification of `kernels.steps.codebook`, its bias and its form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.layouts import BLOCK, Array, Float32, Float64, pad_channels
from kernels.steps import Form, Tier, tier_forms

# A gathered addition costs about as much as this many of the products that it saves.
GATHER_COST = 8
HIDDEN = 128


def codebook_numpy(actv: Array, patches: npt.NDArray[np.int32], weight: Array, bias: Array) -> Float64:
    """What both forms of the kernel compute before they round to T.

    Args:
        actv: [U3 + 1, 128].
        patches: int32 [U5, taps], rows of actv.
        weight: [taps * 128, 2C], a before b.
        bias: [2C].

    Returns float64 [U5, 2C].
    """
    gathered = actv.astype(np.float64)[patches].reshape(len(patches), -1)  # [U5, taps * 128]
    out: Float64 = gathered @ weight.astype(np.float64) + bias
    return out


def codebook_int8_numpy(
    actv: npt.NDArray[np.uint8], patches: npt.NDArray[np.int32], weight: npt.NDArray[np.int8], scale: Array,
    bias: Array, windows: npt.NDArray[np.int32], interior: Array,
) -> Float64:  # fmt: skip
    """What the kernel of int8 products computes before it rounds to T.

    Args:
        actv, patches: as in `codebook_numpy`, in bytes.
        weight: int8 [taps * 128, 2C]. scale, bias: [2C].
        windows: int32 [U3, taps], the symbols of each row of actv but the last.
        interior: [symbols, 2C], the entry of a patch whose symbols are all the same.

    Returns float64 [U5, 2C].
    """
    gathered = actv.astype(np.int64)[patches].reshape(len(patches), -1)  # [U5, taps * 128]
    out: Float64 = (gathered @ weight.astype(np.int64)).astype(np.float64) * scale + bias
    alone = np.append((windows == windows[:, :1]).all(axis=1) & (windows[:, 0] < len(interior)), False)
    inside = (patches == patches[:, :1]).all(axis=1) & alone[patches[:, 0]]
    out[inside] = interior[windows[patches[inside, 0], 0]]
    return out


def pack_bias(bias: Array) -> Float32:
    """Bias [2C], a before b -> float32 [CB, 2, 32] as the kernel reads it."""
    pair = pad_channels(np.asarray(bias).reshape(2, -1)).reshape(2, -1, BLOCK)
    return np.ascontiguousarray(pair.transpose(1, 0, 2))


def choose_form(tier: Tier, rows: int, actv_rows: int, n_blocks: int = 1, threads: int = 1) -> Form:
    """The cheaper form of a level by count: `rows` distinct patches (U5) over `actv_rows` hidden rows (U3 + 1).

    The forms of a tier give the same bits, so any choice is right. Per tap splits over `n_blocks` = CB units at most,
    which the count of `threads` may leave uneven.
    """
    if "per_tap" not in tier_forms(tier):
        return "gathered"
    rounds = -(-n_blocks // threads)
    uneven = rounds * threads / n_blocks
    per_tap = uneven * (actv_rows * HIDDEN + rows * GATHER_COST)
    return "per_tap" if per_tap < rows * HIDDEN else "gathered"
