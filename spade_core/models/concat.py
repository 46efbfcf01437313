"""The paper's baseline "decoder with concatenation": the label map concatenated instead of SPADE (section 4)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import SLOPE
from spade_core.config import (
    STYLE_DIM,
    UPSAMPLINGS,
    GeneratorConfig,
)
from spade_core.models.spade import Normalise, param_free_norm


class ConcatBlock(nn.Module):
    """SPADE's residual block with norm(x) and the one-hot map, concatenated, in place of SPADE(x)."""

    def __init__(self, fin: int, fout: int, config: GeneratorConfig) -> None:
        super().__init__()
        fmid, labels = min(fin, fout), config.semantic_nc
        self.norm_0 = param_free_norm(config.norm, fin)
        self.norm_1 = param_free_norm(config.norm, fmid)
        self.conv_0 = nn.Conv2d(fin + labels, fmid, 3, padding=1)
        self.conv_1 = nn.Conv2d(fmid + labels, fout, 3, padding=1)
        self.conv_s = None if fin == fout else nn.Conv2d(fin + labels, fout, 1, bias=False)
        self.norm_s = None if fin == fout else param_free_norm(config.norm, fin)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        """x [N, fin, h, w], one-hot segmap [N, semantic_nc, h, w] -> [N, fout, h, w]."""
        dx = F.leaky_relu(self.norm_0(x), SLOPE)
        dx = self.conv_0(torch.cat([dx, segmap], dim=1))  # [N, fmid, h, w]
        dx = F.leaky_relu(self.norm_1(dx), SLOPE)
        dx = self.conv_1(torch.cat([dx, segmap], dim=1))  # [N, fout, h, w]
        shortcut = x
        if self.conv_s is not None and self.norm_s is not None:
            shortcut = self.conv_s(torch.cat([self.norm_s(x), segmap], dim=1))
        out: Tensor = shortcut + dx
        return out


class ConcatGenerator(nn.Module):
    """The SPADE generator with `ConcatBlock`s: the paper's "decoder w/ Concat"."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        nf, (start_h, start_w) = config.nf, config.level_sizes[0]
        self.fc: nn.Module
        if config.style:
            self.fc = nn.Linear(STYLE_DIM, 16 * nf * start_h * start_w)
        else:
            self.fc = nn.Conv2d(config.semantic_nc, 16 * nf, 3, padding=1)
        widths = [16 * nf, 16 * nf, 16 * nf, 16 * nf, 8 * nf, 4 * nf, 2 * nf, nf]
        if config.upsampling == "most":
            widths.append(nf // 2)
        self.blocks = nn.ModuleList(ConcatBlock(fin, fout, config) for fin, fout in pairwise(widths))
        self.conv_img = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, segmap: Tensor, style: Tensor | None, normalise: Normalise) -> Tensor:  # noqa: ARG002
        """One-hot segmap [N, semantic_nc, H, W], style [N, 256] or None -> image before tanh [N, 3, H, W].

        `normalise` is not called: there is no SPADE.
        """
        steps = UPSAMPLINGS[self.config.upsampling]
        x = self._start(_shrink(segmap, 2**steps), style)
        for i, block in enumerate(self.blocks):
            # As SPADE: head_0, then x2 before every block; `normal` keeps its size before G_middle_1.
            if i > 0 and not (i == 2 and self.config.upsampling == "normal"):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(x, _shrink(segmap, segmap.shape[2] // x.shape[2]))
        image: Tensor = self.conv_img(F.leaky_relu(x, SLOPE))
        return image

    def _start(self, small: Tensor, style: Tensor | None) -> Tensor:
        if style is None:
            start: Tensor = self.fc(small)
            return start
        h0, w0 = self.config.level_sizes[0]
        start = self.fc(style)
        return start.view(-1, 16 * self.config.nf, h0, w0)


def _shrink(segmap: Tensor, factor: int) -> Tensor:
    return segmap[:, :, ::factor, ::factor]  # NEAREST by a whole factor: source row = i * factor
