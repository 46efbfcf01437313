"""SPADE on a map whose pixels all differ, such as features: the layer's convs, and the modulation in one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.cuda.autograd import spade_modulate
from spade_core.codebook.modulate import SLICE
from spade_core.codebook.on_cuda import library_for
from spade_core.drop_in.layers import SpadeLayer
from spade_core.drop_in.norms import Affine, norm_as_affine


def fused_dense(module: nn.Module, layer: SpadeLayer, x: Tensor, segmap: Tensor) -> Tensor | None:
    """What `layers.dense` computes, or None where the module's own forward does as well.

    Without gradients on the CPU, norm, 1 + gamma, product and sum are one pass over x. On CUDA they are one kernel,
    differentiable, where there are kernels.
    """
    norm = module.get_submodule(layer.parts.norm)
    if torch.is_autocast_enabled(x.device.type) or segmap.dtype != x.dtype:
        return None
    library = library_for(x) if layer.one_plus else None
    affine = norm_as_affine(norm, x) if library is None else None
    if library is None and affine is None:
        return None
    gamma, beta = _gamma_and_beta(module, layer, F.interpolate(segmap, size=x.shape[2:], mode="nearest"))
    if affine is not None:
        return _modulate(x, gamma, beta, affine, layer.one_plus)
    maps = [norm(x), gamma, beta]
    if x.dim() == 5:  # the kernels know two dimensions
        maps = [values.reshape(*values.shape[:2], -1, values.shape[-1]) for values in maps]
    out, _ = spade_modulate(*maps, norm="given", leaky=False, library=library)
    return out if x.dim() == 4 else out.reshape(x.shape)


def _gamma_and_beta(module: nn.Module, layer: SpadeLayer, segmap: Tensor) -> tuple[Tensor, Tensor]:
    part, names = module.get_submodule, layer.parts
    hidden = layer.activation(module)(part(names.shared)(segmap))
    gamma, beta = part(names.gamma)(hidden), part(names.beta)(hidden)
    gamma = gamma if names.gamma_norm is None else part(names.gamma_norm)(gamma)
    return gamma, beta if names.beta_norm is None else part(names.beta_norm)(beta)


def _modulate(x: Tensor, gamma: Tensor, beta: Tensor, norm: Affine, one_plus: bool) -> Tensor:
    """(x * scale + shift) * (1 + gamma) + beta, a slice of an image at a time, which stays in the cache."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    # The rows of `out` are written as views, which other layouts, such as a transposed map's, do not have.
    out = torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)
    for image in range(len(x)):
        rows = [values[image].flatten(1) for values in (x, gamma, beta, out)]  # [C, pixels]
        scale, shift = norm.scale[image][:, None], norm.shift[image][:, None]
        if last:
            rows, scale, shift = [values.t() for values in rows], scale.t(), shift.t()
        step = max(1, SLICE // rows[0].shape[1])
        for start in range(0, len(rows[0]), step):
            part = slice(start, start + step)
            of_x, of_gamma, of_beta, written = (values[part] for values in rows)
            torch.addcmul(shift if last else shift[part], of_x, scale if last else scale[part], out=written)
            torch.addcmul(of_beta + written if one_plus else of_beta, of_gamma, written, out=written)
    return out
