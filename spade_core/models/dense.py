"""The dense form: SPADE as the paper writes it, convs on one-hot maps at every pixel. The reference of other forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.config import GeneratorConfig
from spade_core.models.form import AnyGenerator
from spade_core.models.one_hot import one_hot
from spade_core.models.spade import SPADE


def synthesize_dense(generator: AnyGenerator, symbols: Tensor, style: Tensor | None) -> Tensor:
    """Integer symbols [N, H, W], style [N, 256] (None without a style input) -> image before tanh [N, 3, H, W]."""
    form = DenseForm(symbols, generator.config, generator.dtype)
    return generator.draw(form, None if style is None else style.to(generator.dtype))


class DenseForm:
    """A `Form` that holds the one-hot map at every size asked for."""

    memory_format = torch.preserve_format

    def __init__(self, symbols: Tensor, config: GeneratorConfig, dtype: torch.dtype) -> None:
        self._height, self._width = symbols.shape[1:]
        self._start_step = 2**config.upsamplings
        self._segmaps = {(self._height, self._width): one_hot(symbols, config, dtype)}

    def segmap(self, step: int) -> Tensor:
        """The one-hot map, every `step`-th pixel: [N, semantic_nc, H / step, W / step]."""
        return self._segmap_at(self._height // step, self._width // step)

    def start(self, fc: nn.Module) -> Tensor:
        """`fc` of the one-hot map at the start size."""
        out: Tensor = fc(self.segmap(self._start_step))
        return out

    def normalise(self, spade: SPADE, x: Tensor) -> Tensor:
        """SPADE of x [N, C, h, w] and the one-hot map of x's size."""
        out: Tensor = spade(x, self._segmap_at(x.shape[2], x.shape[3]))
        return out

    def _segmap_at(self, height: int, width: int) -> Tensor:
        if (height, width) not in self._segmaps:
            whole = self._segmaps[self._height, self._width]
            self._segmaps[height, width] = F.interpolate(whole, size=(height, width), mode="nearest")
        return self._segmaps[height, width]
