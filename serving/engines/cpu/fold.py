"""The parameters of a SPADE norm for the codebook, in NumPy: the same bits as `spade_core.codebook.fold` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kernels.constants import EPSILON
from kernels.layouts import Array, Float32
from spade_core.config import GeneratorConfig


@dataclass(frozen=True, eq=False)
class Folded:
    """The parameters of one SPADE norm; the statistics of a batch norm are folded in.

    Attributes:
        table: float32 [k*k, symbols + 1, 128]; row s of tap t is what symbol s adds at the tap, outside zero.
        shared_bias: float32 [128].
        weight, bias: float32 [k*k * 128, 2C] and [2C], gathered hidden rows -> (a, b).
        instance: x is first normalised with its own statistics.
    """

    table: Float32
    shared_bias: Float32
    weight: Float32
    bias: Float32
    instance: bool


def fold(norm: Mapping[str, Float32], config: GeneratorConfig) -> Folded:
    """Rearrange the parameters of one norm, by their keys without the norm's name.

    SPADE paper, equation 1, is (1 + gamma) * r * (x - mean) + beta with r = 1 / sqrt(variance + eps), so
    a = (1 + gamma) * r and b = beta - a * mean; both in float64.
    """
    g_weight: Array = by_tap(norm["mlp_gamma.weight"])  # [C, k*k * 128]
    b_weight: Array = by_tap(norm["mlp_beta.weight"])
    g_bias: Array = 1 + norm["mlp_gamma.bias"]
    b_bias: Array = norm["mlp_beta.bias"]
    instance = config.norm == "instance"
    if not instance:
        rstd = 1 / np.sqrt(norm["param_free_norm.running_var"].astype(np.float64) + EPSILON)
        shift = norm["param_free_norm.running_mean"] * rstd
        b_weight, b_bias = b_weight - g_weight.astype(np.float64) * shift[:, None], b_bias - g_bias * shift
        g_weight, g_bias = g_weight * rstd[:, None], g_bias * rstd
    return Folded(
        symbol_table(norm["mlp_shared.0.weight"], config),
        norm["mlp_shared.0.bias"],
        np.ascontiguousarray(np.concatenate([g_weight, b_weight]).astype(np.float32).T),
        np.concatenate([g_bias, b_bias]).astype(np.float32),
        instance,
    )


def symbol_table(weight: Float32, config: GeneratorConfig) -> Float32:
    """Conv weights on one-hot maps [out, semantic_nc, k, k] -> what each symbol adds at each tap, outside zero.

    float32 [k*k, symbols + 1, out]. The row of an edge symbol is the sum of its class and the edge.
    """
    rows = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[1], weight.shape[0])  # [k*k, semantic_nc, out]
    table = np.zeros((len(rows), config.symbols + 1, weight.shape[0]), np.float32)
    if config.instance_edges:
        table[:, :-1:2] = rows[:, :-1]
        table[:, 1::2] = rows[:, :-1] + rows[:, -1:]
    else:
        table[:, :-1] = rows
    return table


def by_tap(weight: Float32) -> Float32:
    """Conv weights [out, in, k, k] -> [out, k*k * in], taps outermost."""
    return weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
