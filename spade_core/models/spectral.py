"""Spectral norm on the convs that the SPADE paper normalises, while training; folded into the weights at export.

Spectral norm (Miyato et al., "Spectral Normalization for GANs", arXiv 1802.05957) divides a weight by its largest
singular value, W / sigma(W) (equation 8). A conv with spectral norm has `weight_orig`, `weight_u` and `weight_v` in
place of `weight`, the keys of published files. Each forward pass in training mode does one power iteration (algorithm
1). `torch.nn.utils.spectral_norm` computes the same, but copies channels-last weights to rearrange them, reads each
weight once more for u^T W v, and builds its gradient from several operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.models.form import NormedConvs

SPECTRAL_EPS = 1e-12  # least norm that a vector is divided by, as in published training

Module = TypeVar("Module", bound=nn.Module)


def with_spectral_norm(module: Module) -> Module:
    """Put spectral norm, in place, on the convs of a generator, encoder or discriminator that the paper normalises.

    `spectral_convs` lists the convs. u and v start from PyTorch's global random numbers. Returns `module`. Raises
    ValueError for a module with spectral norm.
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
    """The convs that take spectral norm: those in `normed_convs` of a part, and every conv just before a norm.

    In a SPADE generator these are conv_0, conv_1 and conv_s of every residual block; fc, conv_img and SPADE's own convs
    have no spectral norm.
    """
    for part in module.modules():
        if isinstance(part, NormedConvs):
            yield from part.normed_convs()
        elif isinstance(part, nn.Sequential):
            for conv, norm in pairwise(part):
                if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and _is_norm(norm):
                    yield conv


def folded_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict without spectral norm: each `weight` is `folded_weight` of its weight_orig, u and v.

    The keys and shapes equal the state of the network before `with_spectral_norm`. A new `Generator(config)` that
    loads this state draws the images of `generator.eval()`, and can be exported. Other tensors are shared with
    `module`, detached.
    """
    state = {key: tensor.detach() for key, tensor in module.state_dict().items()}
    for name, conv in module.named_modules():
        if not hasattr(conv, "weight_orig"):
            continue
        key = f"{name}.weight" if name else "weight"
        weight, u, v = state.pop(f"{key}_orig"), state.pop(f"{key}_u"), state.pop(f"{key}_v")
        state[key] = folded_weight(weight, u, v, transposed=isinstance(conv, nn.ConvTranspose2d))
    return state


def folded_weight(weight: Tensor, u: Tensor, v: Tensor, transposed: bool = False) -> Tensor:
    """weight / (u^T W v), W = weight as [out, -1] (Miyato et al., equation 8 and algorithm 1); computed in its dtype.

    u is [out]; v is [in * k*k], in the order of files. With `transposed` the weight is [in, out, k, k].
    """
    conv = weight if weight.ndim == 4 else weight.reshape(*weight.shape[:2], -1, 1)
    return weight / _scale(conv, u, _by_tap(v, conv), transposed)


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
    # Copies, since a second forward pass may change u and v before the gradient of the first is computed.
    conv.weight = _Normalise.apply(weight, u.clone(), v.clone(), transposed)  # type: ignore[no-untyped-call]


def _forget_weight(conv: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
    del conv.weight  # free its memory before the next pass


def _matrix(weight: Tensor, transposed: bool) -> Tensor:
    """The weight as a matrix [out, k*k * in], taps outermost; a view of channels-last weights."""
    if transposed:  # [in, out, k, k]
        weight = weight.transpose(0, 1)
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _by_tap(v: Tensor, weight: Tensor) -> Tensor:
    """v [in * k*k], in the order of files -> [k*k * in], in the order of `_matrix`."""
    return v.view(-1, weight.shape[2] * weight.shape[3]).t().flatten()


def _scale(weight: Tensor, u: Tensor, right: Tensor, transposed: bool) -> Tensor:
    """The estimate of the largest singular value, u^T W v (Miyato et al., algorithm 1)."""
    return torch.dot(u, torch.mv(_matrix(weight, transposed), right))


class _Normalise(torch.autograd.Function):
    """W / s with s = u^T W v and constant u and v; the gradient is (g - sum(g * W) / s * u v^T) / s."""

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
