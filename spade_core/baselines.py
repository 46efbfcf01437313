"""The generators that the paper compares SPADE with (SPADE paper, section 4; pix2pixHD, section 3.1).

They train and are evaluated like SPADE; the serving engines do not run them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.config import (
    DOWNSAMPLINGS,
    ENCODER_DECODERS,
    STYLE_DIM,
    UPSAMPLINGS,
    ConfigError,
    GeneratorConfig,
)
from spade_core.generator import Generator
from spade_core.spade import LEAKY_SLOPE, SPADE, Normalise, param_free_norm

ABLATIONS: dict[str, dict[str, Any]] = {
    "spade": {},
    "spade, noise input": {"style": True},
    "spade 1x1": {"spade_kernel": 1},
    "spade 5x5": {"spade_kernel": 5},
    "spade, nf 48": {"nf": 48},
    "spade, nf 80": {"nf": 80},
    "spade, instance norm": {"norm": "instance"},
    "spade, batch norm": {"norm": "batch"},
    "concat": {"architecture": "concat"},
    "pix2pixhd": {"architecture": "pix2pixhd", "norm": "instance"},
    "pix2pixhd++": {"architecture": "pix2pixhd"},
    "pix2pixhd++ with spade": {"architecture": "pix2pixhd-spade"},
}
"""The paper's baselines and ablations, by the fields in which they differ from a preset."""


def ablation(config: GeneratorConfig, name: str) -> GeneratorConfig:
    """`config` with the fields of ABLATIONS[name]. Raises ConfigError, listing the names there are."""
    if name not in ABLATIONS:
        raise ConfigError(f"[config] expected a baseline out of {', '.join(ABLATIONS)} but got {name!r}")
    change = ABLATIONS[name]
    if change.get("architecture") in ENCODER_DECODERS:  # they take no style, and have one depth
        change = change | {"style": False, "upsampling": "normal"}
    return replace(config, **change)


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
        dx = F.leaky_relu(self.norm_0(x), LEAKY_SLOPE)
        dx = self.conv_0(torch.cat([dx, segmap], dim=1))  # [N, fmid, h, w]
        dx = F.leaky_relu(self.norm_1(dx), LEAKY_SLOPE)
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
        image: Tensor = self.conv_img(F.leaky_relu(x, LEAKY_SLOPE))
        return image

    def _start(self, small: Tensor, style: Tensor | None) -> Tensor:
        if style is None:
            start: Tensor = self.fc(small)
            return start
        h0, w0 = self.config.level_sizes[0]
        start = self.fc(style)
        return start.view(-1, 16 * self.config.nf, h0, w0)


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


AnyGenerator = Generator | ConcatGenerator | EncoderDecoder


def new_generator(config: GeneratorConfig) -> AnyGenerator:
    """The generator of config.architecture, with PyTorch's own random weights."""
    if config.architecture in ENCODER_DECODERS:
        return EncoderDecoder(config)
    return ConcatGenerator(config) if config.architecture == "concat" else Generator(config)


def _shrink(segmap: Tensor, factor: int) -> Tensor:
    return segmap[:, :, ::factor, ::factor]  # NEAREST by a whole factor: source row = i * factor
