"""The codebook form of a generator: an image from symbols and their plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.entries import LevelTensors, codebook
from spade_core.codebook.fold import Folded, fold
from spade_core.codebook.modulate import modulate
from spade_core.config import GeneratorConfig
from spade_core.models.form import AnyGenerator
from spade_core.models.one_hot import one_hot
from spade_core.models.spade import SPADE
from spade_core.models.symbol_table import embed, symbol_table


def synthesize_codebook(
    generator: AnyGenerator,
    folded: dict[SPADE, Folded] | None,
    symbols: Tensor,
    levels: dict[tuple[int, int], LevelTensors],
    style: Tensor | None,
    timed: Callable[[float], None] | None = None,
) -> Tensor:
    """The image of `synthesize_dense`, by codebooks.

    Args:
        folded: from `fold_generator`. None folds each norm in its turn: in training the gradients of a norm are then
            complete, and its memory is free, as soon as the backward pass has left the norm.
        symbols: integers [N, H, W].
        levels: the plan of `symbols`, from `level_tensors`.
        style: [N, 256], or None without a style input.
        timed: called with the seconds of each norm's codebook: embed and entries, which read no feature map.

    Returns the image before tanh [N, 3, H, W].
    """
    dtype = generator.dtype
    form = CodebookForm(generator.config, folded, symbols, levels, dtype, timed)
    return generator.draw(form, None if style is None else style.to(dtype))


@dataclass(frozen=True)
class CodebookForm:
    """A `Form` that reads the label map through a plan. Attributes as the arguments of `synthesize_codebook`.

    Attributes:
        dtype: of one-hot maps, which only baselines ask for.
    """

    config: GeneratorConfig
    folded: dict[SPADE, Folded] | None
    symbols: Tensor
    levels: dict[tuple[int, int], LevelTensors]
    dtype: torch.dtype
    timed: Callable[[float], None] | None = None
    memory_format: torch.memory_format = torch.channels_last

    def segmap(self, step: int) -> Tensor:
        """The one-hot map, every `step`-th pixel: [N, semantic_nc, H / step, W / step]."""
        return one_hot(self.symbols[:, ::step, ::step], self.config, self.dtype)

    def start(self, fc: nn.Module) -> Tensor:
        """`fc` of the label map at the start size, by lookup."""
        return label_start(fc, self.symbols, self.config)

    def normalise(self, spade: SPADE, x: Tensor) -> Tensor:
        """SPADE of x [N, C, h, w], through the codebook of x's level."""
        began = time.perf_counter()
        level = self.levels[x.shape[2], x.shape[3]]
        own = fold(spade, self.config) if self.folded is None else self.folded[spade]
        entries = codebook(own, level)
        if self.timed is not None:
            self.timed(time.perf_counter() - began)
        return modulate(x, entries, level.index, own.norm, level.order)


def label_start(fc: nn.Module, symbols: Tensor, config: GeneratorConfig) -> Tensor:
    """`fc`, a 3x3 conv with padding 1, of the map at the start size: symbols [N, H, W] -> [N, 16 nf, h0, w0]."""
    step = 2**config.upsamplings
    small = symbols[:, ::step, ::step].long()  # NEAREST by a whole factor: source row = i * step
    padded = F.pad(small, (1, 1, 1, 1), value=config.symbols)
    patches = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # [N, h0, w0, 3, 3]
    assert isinstance(fc, nn.Conv2d)
    assert fc.bias is not None
    rows = embed(symbol_table(fc.weight, config), fc.bias, patches.reshape(-1, 9))
    return rows.view(*small.shape, -1).permute(0, 3, 1, 2)  # [N, 16 nf, h0, w0], channels last
