"""Spectral norm (Miyato et al., ICLR 2018) on the convs that the paper normalises, while training; folded at export.

A conv with it has `weight_orig`, `weight_u` and `weight_v` in place of `weight`, the keys of published files, and each
forward pass in training mode does one power iteration. Our own, not `torch.nn.utils.spectral_norm`: that one copies
channels-last weights to rearrange them, reads each weight once more for u^T W v, and has its gradient made of parts; on
the widest convs it cost more than the conv did.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.models.form import NormedConvs

SPECTRAL_EPS = 1e-12  # of the vectors' normalisation, as the reference trains it

Module = TypeVar("Module", bound=nn.Module)


def with_spectral_norm(module: Module) -> Module:
    """Put spectral norm, in place, on the convs of a generator, encoder or discriminator that the paper normalises.

    These are conv_0, conv_1 and conv_s of every residual block, and every conv followed at once by a norm; not fc,
    conv_img or SPADE's own convs. The start of u and v comes from PyTorch's global random numbers. Returns `module`.
    A module that has it is refused with ValueError.
    """
    for conv in spectral_convs(module):
        if hasattr(conv, "weight_orig"):
            raise ValueError(
                f"[spectral] expected {type(module).__name__} without spectral norm but got one that has it; "
                "apply it once"
            )
        _add(conv)
    return module


def spectral_convs(module: nn.Module) -> Iterator[nn.Conv2d | nn.ConvTranspose2d]:
    """The convs that `with_spectral_norm` takes."""
    for part in module.modules():
        if isinstance(part, NormedConvs):
            yield from part.normed_convs()
        elif isinstance(part, nn.Sequential):
            for conv, norm in pairwise(part):
                if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and _is_norm(norm):
                    yield conv


def folded_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict without spectral norm: `weight` = weight_orig / (u^T W v), W = weight_orig as [out, -1].

    The keys and shapes are those of the same network before `with_spectral_norm`, so that
    `Generator(config).load_state_dict(folded_state(generator))` is the network to export; its images are those of
    `generator.eval()`. Tensors that need no folding are shared with `module`, detached.
    """
    state = {key: tensor.detach() for key, tensor in module.state_dict().items()}
    for name, conv in module.named_modules():
        if not hasattr(conv, "weight_orig"):
            continue
        key = f"{name}.weight" if name else "weight"
        weight, u, v = state.pop(f"{key}_orig"), state.pop(f"{key}_u"), state.pop(f"{key}_v")
        state[key] = weight / _scale(weight, u, _by_tap(v, weight), isinstance(conv, nn.ConvTranspose2d))
    return state


def _add(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    weight = conv.weight.detach()
    del conv._parameters["weight"]
    conv.register_parameter("weight_orig", nn.Parameter(weight))
    shape = (weight.shape[1], weight.shape[0]) if isinstance(conv, nn.ConvTranspose2d) else weight.shape[:2]
    taps = weight.shape[2] * weight.shape[3]
    for name, size in (("weight_u", shape[0]), ("weight_v", shape[1] * taps)):
        conv.register_buffer(name, F.normalize(torch.randn(size, dtype=weight.dtype), dim=0, eps=SPECTRAL_EPS))
    conv.register_forward_pre_hook(_normalise_weight)
    conv.register_forward_hook(_forget_weight)


def _normalise_weight(conv: nn.Module, inputs: Any) -> None:  # noqa: ARG001 - the signature of a hook
    weight, u, v = conv.weight_orig, conv.weight_u, conv.weight_v
    assert isinstance(weight, Tensor)
    assert isinstance(u, Tensor)
    assert isinstance(v, Tensor)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    if conv.training:
        with torch.no_grad():
            matrix = _matrix(weight, transposed)
            taps = weight.shape[2] * weight.shape[3]
            right = F.normalize(torch.mv(matrix.t(), u), dim=0, eps=SPECTRAL_EPS)  # [k*k * in]
            u.copy_(F.normalize(torch.mv(matrix, right), dim=0, eps=SPECTRAL_EPS))
            v.copy_(right.view(taps, -1).t().flatten())
    # Copies: a second pass before the gradient of the first moves u and v on.
    conv.weight = _Normalise.apply(weight, u.clone(), v.clone(), transposed)  # type: ignore[no-untyped-call]


def _forget_weight(conv: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
    del conv.weight  # or it would keep its memory until the next pass


def _matrix(weight: Tensor, transposed: bool) -> Tensor:
    """[out, k*k * in], taps outermost: of channels-last weights a view."""
    if transposed:  # [in, out, k, k]
        weight = weight.transpose(0, 1)
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _by_tap(v: Tensor, weight: Tensor) -> Tensor:
    """v [in * k*k], as files have it, in the order of `_matrix`."""
    return v.view(-1, weight.shape[2] * weight.shape[3]).t().flatten()  # [k*k * in]


def _scale(weight: Tensor, u: Tensor, right: Tensor, transposed: bool) -> Tensor:
    return torch.dot(u, torch.mv(_matrix(weight, transposed), right))


class _Normalise(torch.autograd.Function):
    """W / s, s = u^T W v with u and v constant; its gradient is (g - sum(g * W) / s * u v^T) / s."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, transposed: bool) -> Tensor:
        right = _by_tap(v, weight)
        scale = _scale(weight, u, right, transposed)
        ctx.save_for_backward(weight, u, right, scale)
        ctx.transposed = transposed
        return weight / scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        weight, u, right, scale = ctx.saved_tensors
        rows, weights = _matrix(grad, ctx.transposed), _matrix(weight, ctx.transposed)
        share = torch.dot(rows.flatten(), weights.flatten()) / scale
        out = torch.addr(rows, u * -share, right).div_(scale)  # [out, k*k * in]
        fout, fin = (weight.shape[1], weight.shape[0]) if ctx.transposed else weight.shape[:2]
        image = out.view(fout, weight.shape[2], weight.shape[3], fin).permute(0, 3, 1, 2)  # [out, in, k, k]
        return image.transpose(0, 1) if ctx.transposed else image, None, None, None


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d | nn.SyncBatchNorm)
