"""The parameters of a SPADE norm, rearranged for the codebook, with batch-norm statistics folded in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kernels.constants import HIDDEN
from spade_core.config import GeneratorConfig
from spade_core.models.form import AnyGenerator
from spade_core.models.spade import SPADE
from spade_core.models.symbol_table import by_tap, symbol_table


@dataclass(frozen=True)
class Folded:
    """The parameters of one SPADE norm, rearranged for the codebook.

    Attributes:
        table: [k*k * (symbols + 1), 128]; row t * (symbols + 1) + s is what symbol s adds at tap t, outside zero.
        shared_bias: [128].
        weight, bias: [k*k * 128, 2C] and [2C], gathered hidden rows -> (a, b); the bias holds the 1 of 1 + gamma.
            While training, weight is a view of [2C, k*k * 128], so that nothing is transposed in memory.
        norm: applied to x before a*x + b; None when the statistics are folded into weight and bias.
    """

    table: Tensor
    shared_bias: Tensor
    weight: Tensor
    bias: Tensor
    norm: nn.Module | None


def fold(spade: SPADE, config: GeneratorConfig, dtype: torch.dtype | None = None) -> Folded:
    """Rearrange the parameters of one norm, as `dtype` or in their own dtype.

    In eval mode batch-norm statistics are folded in too, in float64. SPADE paper, equation 1, is (1 + gamma) * r *
    (x - mean) + beta with r = 1 / sqrt(variance + eps), so a = (1 + gamma) * r and b = beta - a * mean.
    """
    norm = spade.param_free_norm
    shared, gamma, beta = spade.mlp_shared[0], spade.mlp_gamma, spade.mlp_beta
    assert isinstance(shared, nn.Conv2d)
    g_weight, b_weight = by_tap(gamma.weight), by_tap(beta.weight)  # [C, k*k * 128]
    assert isinstance(gamma.bias, Tensor)
    assert isinstance(beta.bias, Tensor)
    g_bias, b_bias = 1 + gamma.bias, beta.bias
    keep: nn.Module | None = norm
    if isinstance(norm, nn.BatchNorm2d) and not spade.training:
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        rstd = torch.rsqrt(norm.running_var.double() + norm.eps)
        shift = norm.running_mean.double() * rstd
        g_weight, b_weight, g_bias, b_bias = (t.double() for t in (g_weight, b_weight, g_bias, b_bias))
        b_weight, b_bias = b_weight - g_weight * shift[:, None], b_bias - g_bias * shift
        g_weight, g_bias = g_weight * rstd[:, None], g_bias * rstd
        keep = None
    dtype = dtype or shared.weight.dtype
    weight = torch.cat([g_weight, b_weight]).to(dtype).t()  # [k*k * 128, 2C]
    return Folded(
        table=symbol_table(shared.weight, config).to(dtype),
        shared_bias=shared.bias.to(dtype) if shared.bias is not None else torch.zeros(HIDDEN, dtype=dtype),
        weight=weight if spade.training and weight.requires_grad else weight.contiguous(),
        bias=torch.cat([g_bias, b_bias]).to(dtype),
        norm=keep,
    )


def fold_generator(generator: AnyGenerator, dtype: torch.dtype | None = None) -> dict[SPADE, Folded]:
    """`fold` of every norm of a generator; done once for inference."""
    return {m: fold(m, generator.config, dtype) for m in generator.modules() if isinstance(m, SPADE)}
