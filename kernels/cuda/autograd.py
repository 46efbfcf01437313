"""SPADE's modulation for training: both forms as differentiable functions on the CUDA kernels.

In float64 the functions run the specification in PyTorch, forward and backward: that is what gradcheck checks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.cuda.host.library import Library, Norm
from kernels.cuda.modulate.modulate_codebook import (
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
    norm_statistics,
    statistics_torch,
)


def spade_modulate(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    norm: Norm,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    epsilon: float = EPSILON,
    leaky: bool = True,
    library: Library | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """lrelu(norm(x) * (1 + gamma) + beta) and the statistics; see `modulate_dense`.

    Differentiable in x, gamma and beta; the statistics that come back are not, and serve running averages.
    """
    out, mean, rstd = _Dense.apply(x, gamma, beta, mean, rstd, norm, epsilon, leaky, library)  # type: ignore[no-untyped-call]
    return out, mean, rstd


def spade_modulate_codebook(
    x: Tensor,
    entries: Tensor,
    index: Tensor,
    *,
    norm: Norm = "given",
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    epsilon: float = EPSILON,
    shift: int = 0,
    leaky: bool = True,
    order: Order | None = None,
    library: Library | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """lrelu(a[index] * norm(x) + b[index]) and the statistics; see `modulate_codebook`.

    Differentiable in x and entries. With `order`, from `sort_index`, the gradient has the same bits every time.
    """
    arguments = (x, entries, index, mean, rstd, norm, epsilon, shift, leaky, order, library)
    out, mean, rstd = _Codebook.apply(*arguments)  # type: ignore[no-untyped-call]
    return out, mean, rstd


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor | None, rstd: Tensor | None, norm: Norm,
        epsilon: float, leaky: bool, library: Library | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        if x.dtype == torch.float64:
            if norm != "given":
                mean, rstd = statistics_torch(x, norm, epsilon)
            out = modulate_dense_torch(x, gamma, beta, mean, rstd, leaky)
        else:
            out, mean, rstd = modulate_dense(
                x, gamma, beta, norm=norm, mean=mean, rstd=rstd, epsilon=epsilon, leaky=leaky, library=library
            )
        ctx.save_for_backward(x, gamma, beta, mean, rstd)
        ctx.norm, ctx.leaky, ctx.library = norm, leaky, library
        if norm != "given":
            ctx.mark_non_differentiable(mean, rstd)
        return out, mean, rstd

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, mean, rstd = ctx.saved_tensors
        if x.dtype == torch.float64:
            gradients = modulate_dense_backward_torch(x, gamma, beta, dy, mean, rstd, ctx.norm, ctx.leaky)
        else:
            gradients = modulate_dense_backward(
                x, gamma, beta, dy, mean, rstd, norm=ctx.norm, leaky=ctx.leaky, library=ctx.library
            )
        return (*gradients, *[None] * 6)


class _Codebook(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, entries: Tensor, index: Tensor, mean: Tensor | None, rstd: Tensor | None, norm: Norm,
        epsilon: float, shift: int, leaky: bool, order: Order | None, library: Library | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        twin = x.dtype == torch.float64
        if norm != "given":
            mean, rstd = (
                statistics_torch(x, norm, epsilon)
                if twin
                else norm_statistics(x, norm, epsilon=epsilon, library=library)
            )
        if twin:
            out = modulate_codebook_torch(x, entries, index, mean=mean, rstd=rstd, shift=shift, leaky=leaky)
        else:
            out = modulate_codebook(
                x, entries, index, mean=mean, rstd=rstd, shift=shift, leaky=leaky, library=library
            )  # fmt: skip
        ctx.save_for_backward(x, entries, index, mean, rstd)
        ctx.norm, ctx.shift, ctx.leaky, ctx.order, ctx.library = norm, shift, leaky, order, library
        if norm != "given":
            ctx.mark_non_differentiable(mean, rstd)
        return out, mean, rstd

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, entries, index, mean, rstd = ctx.saved_tensors
        arguments = {"mean": mean, "rstd": rstd, "shift": ctx.shift, "leaky": ctx.leaky, "norm": ctx.norm}
        if x.dtype == torch.float64:
            dx, dentries = modulate_codebook_backward_torch(x, entries, index, dy, **arguments)
        else:
            dx, dentries = modulate_codebook_backward(
                x, entries, index, dy, **arguments, order=ctx.order, library=ctx.library
            )
        return (dx, dentries.to(entries.dtype), *[None] * 9)
