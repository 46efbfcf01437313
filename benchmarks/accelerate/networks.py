"""The networks that `accelerate` is measured on, MONAI's own, and their label maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Call = Callable[[Any], Tensor]
ORGANS = 8  # classes of the phantom


@dataclass(frozen=True)
class Case:
    """A network and one call of it.

    Attributes:
        steps: calls with one label map; the accelerated network keeps its codebooks over them.
    """

    name: str
    model: nn.Module
    segmap: Tensor
    call: Call
    steps: int = 1


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Label maps int64 [N, *size] -> float32 [N, classes, *size]."""
    return F.one_hot(labels, classes).movedim(-1, 1).float().contiguous()


def phantom(size: int, seed: int = 0) -> Tensor:
    """A body of ellipsoids in ellipsoids: labels int64 [1, size, size, size], 0 outside."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij")
    labels = np.zeros((size,) * 3, np.int64)
    for organ in range(1, ORGANS):
        centre = random.uniform(-0.4, 0.4, 3) if organ > 1 else np.zeros(3)
        radius = random.uniform(0.1, 0.4, 3) if organ > 1 else np.array([0.9, 0.7, 0.8])
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radius, strict=True)) < 1
        labels[inside & (labels > 0) if organ > 1 else inside] = organ
    return torch.from_numpy(labels)[None]


def cases(labels: Tensor, classes: int, volume: int, steps: int) -> list[Case]:
    """The cases on a label map int64 [1, H, W] of `classes`, and on a phantom of `volume` voxels a side."""
    flat, solid = one_hot(labels, classes), one_hot(phantom(volume), ORGANS)
    return [
        _spadenet(flat, [256, 128, 64, 32]),
        _spadenet(solid, [64, 32, 16]),
        _decoder(flat),
        _decoder(solid),
        _diffusion(flat, steps),
        _diffusion(solid, steps),
    ]


def _spadenet(segmap: Tensor, channels: list[int]) -> Case:
    from monai.networks.nets import SPADENet

    dims = segmap.dim() - 2
    model = SPADENet(dims, 1, 1, segmap.shape[1], list(segmap.shape[2:]), list(channels), is_vae=False)
    return Case(f"SPADENet {dims}D", model, segmap, lambda net: net(segmap)[0])


def _decoder(segmap: Tensor) -> Case:
    from monai.networks.nets import SPADEAutoencoderKL

    dims = segmap.dim() - 2
    model = SPADEAutoencoderKL(
        dims, segmap.shape[1], num_res_blocks=(1, 1, 1), channels=(32, 64, 64), latent_channels=8,
        attention_levels=(False,) * 3, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    )  # fmt: skip
    latent = torch.randn(1, 8, *(side // 4 for side in segmap.shape[2:]))
    return Case(f"AutoencoderKL decoder {dims}D", model, segmap, lambda net: net.decode(latent, segmap))


def _diffusion(segmap: Tensor, steps: int) -> Case:
    from monai.networks.nets import SPADEDiffusionModelUNet

    dims = segmap.dim() - 2
    # Diffusion runs on latents, four times smaller than the image in each direction.
    segmap = F.interpolate(segmap, scale_factor=0.25)
    model: Any = SPADEDiffusionModelUNet(
        dims, 8, 8, segmap.shape[1], num_res_blocks=1, channels=(64, 128, 128), attention_levels=(False, False, True),
        num_head_channels=64,
    )  # fmt: skip
    noise, time = torch.randn(1, 8, *segmap.shape[2:]), torch.tensor([500])
    return Case(f"diffusion UNet {dims}D, a step", model, segmap, lambda net: net(noise, time, segmap), steps)
