"""The codebook form of a generator: an image from symbols and their plan."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.codebook.entries import LevelTensors, codebook
from spade_core.codebook.fold import Folded, fold
from spade_core.codebook.modulate import modulate
from spade_core.models.generator import Generator
from spade_core.models.one_hot import embed, one_hot, symbol_table
from spade_core.models.registry import AnyGenerator
from spade_core.models.spade import SPADE


@dataclass
class CodebookSeconds:
    """Adds up the time spent in embed and codebook, the part of the form that x does not enter."""

    total: float = 0.0


def synthesize_codebook(
    generator: AnyGenerator,
    folded: dict[SPADE, Folded] | None,
    symbols: Tensor,
    levels: dict[tuple[int, int], LevelTensors],
    style: Tensor | None,
    seconds: CodebookSeconds | None = None,
) -> Tensor:
    """As `synthesize_dense`: symbols [N, H, W], its plan, style [N, 256] or None -> image before tanh [N, 3, H, W].

    Without `folded` each norm is folded when its turn comes: in training its gradients are then whole, and out of
    memory, as soon as the backward pass leaves it.
    """
    dtype = generator.conv_img.weight.dtype
    seconds = seconds or CodebookSeconds()

    def normalise(spade: SPADE, x: Tensor) -> Tensor:
        began = time.perf_counter()
        level = levels[x.shape[2], x.shape[3]]
        own = fold(spade, generator.config) if folded is None else folded[spade]
        entries = codebook(own, level)
        seconds.total += time.perf_counter() - began
        return modulate(x, entries, level.index, own.norm, level.order)

    if not isinstance(generator, Generator):
        baseline: Tensor = generator(one_hot(symbols, generator.config, dtype), style, normalise)
        return baseline
    start = generator.style_start(style.to(dtype)) if style is not None else label_start(generator, symbols)
    out: Tensor = generator(start.contiguous(memory_format=torch.channels_last), normalise)
    return out


def label_start(generator: Generator, symbols: Tensor) -> Tensor:
    """`fc`, the 3x3 conv on the map brought to the start size: symbols [N, H, W] -> [N, 16 nf, h0, w0]."""
    config, step = generator.config, 2**generator.config.upsamplings
    small = symbols[:, ::step, ::step].long()  # NEAREST by a whole factor: source row = i * step
    padded = F.pad(small, (1, 1, 1, 1), value=config.symbols)
    patches = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # [N, h0, w0, 3, 3]
    assert isinstance(generator.fc, nn.Conv2d)
    assert generator.fc.bias is not None
    rows = embed(symbol_table(generator.fc.weight, config), generator.fc.bias, patches.reshape(-1, 9))
    return rows.view(*small.shape, -1).permute(0, 3, 1, 2)  # [N, 16 nf, h0, w0]
