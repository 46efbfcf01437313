"""pix2pixHD's global generator, plain and with SPADE in place of its norms (pix2pixHD paper, section 3.1)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.config import (
    DOWNSAMPLINGS,
    GeneratorConfig,
)
from spade_core.models.spade import SPADE, Normalise, param_free_norm


class EncoderDecoder(nn.Module):
    """pix2pixHD's global generator; with architecture pix2pixhd-spade, SPADE in place of each of its norms.

    Conv 7x7 to nf, four stride-2 convs that double the width, nine residual blocks, four transposed convs back, conv
    7x7 to 3; reflect padding, ReLU. A residual block has no ReLU after its second norm (Johnson et al., ECCV 2016).
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.nf << i for i in range(DOWNSAMPLINGS + 1)]  # nf .. 16 nf
        self.conv_in = NormedConv(nn.Conv2d(config.semantic_nc, widths[0], 7, bias=False), 3, config)
        self.down = nn.ModuleList(
            NormedConv(nn.Conv2d(fin, fout, 3, stride=2, padding=1, bias=False), 0, config)
            for fin, fout in pairwise(widths)
        )
        self.middle = nn.ModuleList(
            NormedConv(nn.Conv2d(widths[-1], widths[-1], 3, bias=False), 1, config) for _ in range(2 * 9)
        )
        self.up = nn.ModuleList(
            NormedConv(nn.ConvTranspose2d(fin, fout, 3, stride=2, padding=1, output_padding=1, bias=False), 0, config)
            for fin, fout in pairwise(widths[::-1])
        )
        self.conv_img = nn.Conv2d(widths[0], 3, 7)

    def forward(self, segmap: Tensor, style: Tensor | None, normalise: Normalise) -> Tensor:  # noqa: ARG002
        """One-hot segmap [N, semantic_nc, H, W], style None -> image before tanh [N, 3, H, W]."""
        x = F.relu(self.conv_in(segmap, normalise))  # [N, nf, H, W]
        for layer in self.down:
            x = F.relu(layer(x, normalise))  # [N, 2 nf, H / 2, W / 2] .. [N, 16 nf, H / 16, W / 16]
        for first, second in zip(self.middle[::2], self.middle[1::2], strict=True):
            x = x + second(F.relu(first(x, normalise)), normalise)
        for layer in self.up:
            x = F.relu(layer(x, normalise))
        image: Tensor = self.conv_img(F.pad(x, (3, 3, 3, 3), mode="reflect"))
        return image


class NormedConv(nn.Module):
    """Reflect padding, a conv without bias (the norm would take it away), and its norm, plain or SPADE."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, reflect: int, config: GeneratorConfig) -> None:
        super().__init__()
        self.reflect = reflect
        self.conv = conv
        with_spade = config.architecture == "pix2pixhd-spade"
        self.norm = SPADE(conv.out_channels, config) if with_spade else param_free_norm(config.norm, conv.out_channels)

    def forward(self, x: Tensor, normalise: Normalise) -> Tensor:
        """x [N, in, h, w] -> [N, out, h', w'] before its activation."""
        if self.reflect:
            x = F.pad(x, (self.reflect,) * 4, mode="reflect")
        x = self.conv(x)
        out: Tensor = normalise(self.norm, x) if isinstance(self.norm, SPADE) else self.norm(x)
        return out
