"""The style encoder: an image to the mean and log-variance of its style (SPADE paper, appendix A, figure 14)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import EPSILON, SLOPE
from spade_core.config import STYLE_DIM

ENCODER_SIZE = 256  # height and width the image is resized to; six stride-2 convs leave 4x4


class StyleEncoder(nn.Module):
    """Six stride-2 convs with instance norm, then two linear heads.

    Args:
        nf: width of the first conv, 64 in the paper.
    """

    def __init__(self, nf: int) -> None:
        super().__init__()
        widths = (3, nf, 2 * nf, 4 * nf, 8 * nf, 8 * nf, 8 * nf)
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5, self.layer6 = (
            nn.Sequential(
                nn.Conv2d(fin, fout, 3, stride=2, padding=1, bias=False), nn.InstanceNorm2d(fout, eps=EPSILON)
            )
            for fin, fout in pairwise(widths)
        )
        self.fc_mu = nn.Linear(8 * nf * 4 * 4, STYLE_DIM)
        self.fc_var = nn.Linear(8 * nf * 4 * 4, STYLE_DIM)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images [N, 3, H, W] in -1..1: mean and log-variance of the style, each [N, 256]."""
        x = image
        if x.shape[2:] != (ENCODER_SIZE, ENCODER_SIZE):
            x = F.interpolate(x, size=(ENCODER_SIZE, ENCODER_SIZE), mode="bilinear", align_corners=False)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4, self.layer5, self.layer6):
            x = F.leaky_relu(layer(x), SLOPE)
        x = x.flatten(1)  # [N, 8 nf * 16]
        return self.fc_mu(x), self.fc_var(x)
