"""The multiscale PatchGAN discriminator (SPADE paper, figure 13; pix2pixHD, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.spade import LEAKY_SLOPE, NORM_EPS

SCALES = 2  # num_D of the paper
LAYERS = 4  # convs of each before the last


class PatchDiscriminator(nn.Module):
    """One PatchGAN: `layers` convs 4x4 that double the width up to 8 ndf, then one to a score per patch.

    All but the first and the last have instance norm and no bias; spectral norm comes from `with_spectral_norm`.
    """

    def __init__(self, in_channels: int, ndf: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        width = ndf
        self.model0 = nn.Sequential(_conv(in_channels, width, stride=2, bias=True), nn.LeakyReLU(LEAKY_SLOPE))
        for i in range(1, layers):
            fin, width = width, min(2 * width, 8 * ndf)
            normed = nn.Sequential(
                _conv(fin, width, stride=1 if i == layers - 1 else 2, bias=False),
                nn.InstanceNorm2d(width, eps=NORM_EPS),
            )
            self.add_module(f"model{i}", nn.Sequential(normed, nn.LeakyReLU(LEAKY_SLOPE)))
        self.add_module(f"model{layers}", nn.Sequential(_conv(width, 1, stride=1, bias=True)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [N, in_channels, H, W] -> the output of every layer, the scores [N, 1, h, w] last."""
        outputs = []
        for i in range(self.layers + 1):
            x = self.get_submodule(f"model{i}")(x)
            outputs.append(x)
        return outputs


class Discriminator(nn.Module):
    """`scales` PatchGANs, each on the input halved once more by a 3x3 average; keys `discriminator_i.modelN.*`.

    Args:
        semantic_nc: channels of the one-hot map.
        ndf: width of the first conv, 64 in the paper.
        scales: number of PatchGANs, 2 in the paper.
        layers: convs of each before the last, 4 in the paper.
    """

    def __init__(self, semantic_nc: int, ndf: int = 64, scales: int = SCALES, layers: int = LAYERS) -> None:
        super().__init__()
        self.scales = scales
        for i in range(scales):
            self.add_module(f"discriminator_{i}", PatchDiscriminator(semantic_nc + 3, ndf, layers))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """One-hot map and image, concatenated in this order, [N, semantic_nc + 3, H, W], image in -1..1.

        Returns for each scale, the full size first, the outputs of all its layers, its scores [N, 1, h, w] last.
        Fake and real images may share a batch: no norm mixes images.
        """
        outputs = []
        for i in range(self.scales):
            outputs.append(self.get_submodule(f"discriminator_{i}")(x))
            if i + 1 < self.scales:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return outputs


def _conv(fin: int, fout: int, *, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(fin, fout, 4, stride=stride, padding=2, bias=bias)
