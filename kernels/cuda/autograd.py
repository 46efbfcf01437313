"""SPADE's modulation for training: both forms as differentiable functions on the CUDA kernels.

`spade_core.codebook.modulate` trains on the codebook form. The dense form is a drop-in for other SPADE models.
In float64 both run their specification in PyTorch, forward and backward, which is what gradcheck checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.cuda.host.library import Library, Norm
from kernels.cuda.modulate.modulate_codebook import (
    Modulation,
    Order,
    modulate_codebook,
    modulate_codebook_backward,
    modulate_codebook_backward_torch,
    modulate_codebook_torch,
)
from kernels.cuda.modulate.modulate_dense import (
    modulate_dense,
    modulate_dense_backward,
    modulate_dense_backward_torch,
    modulate_dense_torch,
)
from kernels.cuda.norm.norm import Statistics, statistics_torch


def spade_modulate(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    norm: Norm,
    statistics: Statistics | None = None,
    epsilon: float = EPSILON,
    leaky: bool = True,
    library: Library | None = None,
) -> tuple[Tensor, Statistics | None]:
    """lrelu(norm(x) * (1 + gamma) + beta), and the statistics that normalised x; arguments as `modulate_dense`.

    Differentiable in x, gamma and beta. The statistics carry no gradient; they serve running averages.
    """
    options = _DenseOptions(norm, epsilon, leaky, library)
    given = (None, None) if statistics is None else (statistics.mean, statistics.rstd)
    out, mean, rstd = _Dense.apply(x, gamma, beta, *given, options)  # type: ignore[no-untyped-call]
    return out, None if mean is None else Statistics(mean, rstd, norm)


def spade_modulate_codebook(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    how: Modulation,
    *,
    order: Order | None = None,
    library: Library | None = None,
) -> Tensor:
    """lrelu(a[index] * norm(x) + b[index]); arguments as `modulate_codebook` and `modulate_codebook_backward`.

    Differentiable in x, also through statistics that `norm_statistics` computed from x, and in the entries. With
    `order`, from `sort_index`, the gradient has the same bits every time.
    """
    out: Tensor = _Codebook.apply(x, entries, index, how, order, library)  # type: ignore[no-untyped-call]
    return out


@dataclass(frozen=True)
class _DenseOptions:
    norm: Norm
    epsilon: float
    leaky: bool
    library: Library | None


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor | None, rstd: Tensor | None,
        options: _DenseOptions,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        norm, leaky = options.norm, options.leaky
        statistics = None if mean is None or rstd is None else Statistics(mean, rstd)
        if x.dtype == torch.float64:
            if norm != "given":
                statistics = statistics_torch(x, norm, options.epsilon)
            out = modulate_dense_torch(x, gamma, beta, statistics, leaky)
        else:
            out, statistics = modulate_dense(
                x, gamma, beta, norm=norm, statistics=statistics, epsilon=options.epsilon, leaky=leaky,
                library=options.library,
            )  # fmt: skip
        if statistics is not None:
            mean, rstd = statistics.mean, statistics.rstd
        ctx.save_for_backward(x, gamma, beta, mean, rstd)
        ctx.options = options
        if norm != "given":
            ctx.mark_non_differentiable(mean, rstd)
        return out, mean, rstd

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, mean, rstd = ctx.saved_tensors
        options: _DenseOptions = ctx.options
        statistics = None if mean is None else Statistics(mean, rstd, options.norm)
        if x.dtype == torch.float64:
            gradients = modulate_dense_backward_torch(x, gamma, beta, dy, statistics, options.leaky)
        else:
            gradients = modulate_dense_backward(
                x, gamma, beta, dy, statistics, leaky=options.leaky, library=options.library
            )
        return (*gradients, None, None, None)


class _Codebook(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, entries: Tensor, index: Tensor, how: Modulation, order: Order | None,
        library: Library | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, entries, index)
        ctx.how, ctx.order, ctx.library = how, order, library
        if x.dtype == torch.float64:
            return modulate_codebook_torch(x, entries, index, how)
        return modulate_codebook(x, entries, index, how, library=library)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, entries, index = ctx.saved_tensors
        if x.dtype == torch.float64:
            dx, dentries = modulate_codebook_backward_torch(x, entries, index, dy, ctx.how)
        else:
            dx, dentries = modulate_codebook_backward(
                x, entries, index, dy, ctx.how, order=ctx.order, library=ctx.library
            )
        return dx, dentries.to(entries.dtype), None, None, None, None
