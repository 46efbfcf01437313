"""The paper's baseline "decoder with concatenation": the label map concatenated instead of SPADE (section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import SLOPE
from spade_core.config import GeneratorConfig
from spade_core.models.form import AnyGenerator, Form
from spade_core.models.generator import doubled, start_layer, style_start
from spade_core.models.spade import param_free_norm


class ConcatBlock(nn.Module):
    """SPADE's residual block, with norm(x) and the one-hot map concatenated in place of SPADE(x)."""

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

    def normed_convs(self) -> Sequence[nn.Conv2d]:
        """The convs that take spectral norm: all of the block."""
        return [conv for conv in (self.conv_0, self.conv_1, self.conv_s) if conv is not None]


class ConcatGenerator(AnyGenerator):
    """The SPADE generator with `ConcatBlock`s: "decoder w/ concat" in the paper's table 3."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        nf = config.nf
        self.fc = start_layer(config)
        widths = [16 * nf, 16 * nf, 16 * nf, 16 * nf, 8 * nf, 4 * nf, 2 * nf, nf]
        if config.upsampling == "most":
            widths.append(nf // 2)
        self.blocks = nn.ModuleList(ConcatBlock(fin, fout, config) for fin, fout in pairwise(widths))
        self.conv_img = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def draw(self, form: Form, style: Tensor | None) -> Tensor:
        """The label maps in `form`, style [N, 256] or None -> the image before tanh [N, 3, H, W].

        `form.normalise` is not called, since there is no SPADE.
        """
        step = 2**self.config.upsamplings
        x: Tensor = self.fc(form.segmap(step)) if style is None else style_start(self.fc, style, self.config)
        for i, block in enumerate(self.blocks):
            # As in SPADE, x2 comes before every block but the first; `normal` keeps the size before G_middle_1.
            if i > 0 and not (i == 2 and self.config.upsampling == "normal"):
                x, step = doubled(x), step // 2
            x = block(x, form.segmap(step))
        image: Tensor = self.conv_img(F.leaky_relu(x, SLOPE))
        return image
