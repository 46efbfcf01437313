"""The dense form: SPADE as the paper writes it, convs on one-hot maps at every pixel. The reference of other forms."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from spade_core.models.generator import Generator
from spade_core.models.one_hot import one_hot
from spade_core.models.registry import AnyGenerator
from spade_core.models.spade import SPADE


def synthesize_dense(generator: AnyGenerator, symbols: Tensor, style: Tensor | None) -> Tensor:
    """Integer symbols [N, H, W], style [N, 256] (None without a style input) -> image before tanh [N, 3, H, W]."""
    dtype = generator.conv_img.weight.dtype
    segmap = one_hot(symbols, generator.config, dtype)  # [N, semantic_nc, H, W]
    pyramid: dict[tuple[int, int], Tensor] = {}

    def segmap_at(height: int, width: int) -> Tensor:
        if (height, width) not in pyramid:
            pyramid[height, width] = F.interpolate(segmap, size=(height, width), mode="nearest")
        return pyramid[height, width]

    def normalise(spade: SPADE, x: Tensor) -> Tensor:
        out: Tensor = spade(x, segmap_at(x.shape[2], x.shape[3]))
        return out

    if not isinstance(generator, Generator):
        baseline: Tensor = generator(segmap, style, normalise)
        return baseline
    if style is not None:
        start = generator.style_start(style.to(dtype))
    else:
        step = 2**generator.config.upsamplings
        start = generator.fc(segmap_at(symbols.shape[1] // step, symbols.shape[2] // step))
    out: Tensor = generator(start, normalise)
    return out
