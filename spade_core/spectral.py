"""Spectral norm (Miyato et al., ICLR 2018) on the convs that the paper normalises, while training; folded at export.

A conv with it has `weight_orig`, `weight_u` and `weight_v` in place of `weight`, the keys of published files, and each
forward pass in training mode does one power iteration.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from spade_core.baselines import ConcatBlock, NormedConv
from spade_core.spade import ResidualBlock

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
        spectral_norm(conv, eps=SPECTRAL_EPS)
    return module


def spectral_convs(module: nn.Module) -> Iterator[nn.Conv2d | nn.ConvTranspose2d]:
    """The convs that `with_spectral_norm` takes."""
    for part in module.modules():
        if isinstance(part, NormedConv):
            yield part.conv
        elif isinstance(part, ResidualBlock | ConcatBlock):
            yield from (conv for conv in (part.conv_0, part.conv_1, part.conv_s) if conv is not None)
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
        # A transposed conv's weight is [in, out, k, k].
        matrix = (weight.transpose(0, 1) if isinstance(conv, nn.ConvTranspose2d) else weight).flatten(1)
        state[key] = weight / torch.dot(u, torch.mv(matrix, v))
    return state


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d | nn.SyncBatchNorm)
