"""SPADE, spatially-adaptive normalisation, and the residual block built from it (SPADE paper, section 3, figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import EPSILON, HIDDEN, SLOPE
from spade_core.config import GeneratorConfig, Norm


class SPADE(nn.Module):
    """norm(x) * (1 + gamma(segmap)) + beta(segmap): SPADE paper, equation 1, with 1 + gamma for the paper's gamma.

    The module holds the parameters of one norm. `forward` is the dense form; the codebook form reads the same
    parameters (`spade_core.codebook.fold.fold`). The convs pad with zeros and keep the size.
    """

    def __init__(self, channels: int, config: GeneratorConfig) -> None:
        super().__init__()
        kernel, padding = config.spade_kernel, config.spade_kernel // 2
        self.param_free_norm = param_free_norm(config.norm, channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(config.semantic_nc, HIDDEN, kernel, padding=padding), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(HIDDEN, channels, kernel, padding=padding)
        self.mlp_beta = nn.Conv2d(HIDDEN, channels, kernel, padding=padding)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        """x [N, C, h, w] and the one-hot segmap [N, semantic_nc, h, w] -> [N, C, h, w]."""
        actv = self.mlp_shared(segmap)  # [N, 128, h, w]
        gamma, beta = self.mlp_gamma(actv), self.mlp_beta(actv)  # [N, C, h, w]
        out: Tensor = self.param_free_norm(x) * (1 + gamma) + beta
        return out


Normalise = Callable[[SPADE, Tensor], Tensor]
"""Applies a norm to x [N, C, h, w]. The form (dense or codebook) knows the label map, so a block need not."""


class ResidualBlock(nn.Module):
    """Two SPADE norms and convs, and a learned shortcut where the width changes (SPADE paper, figure 4, left)."""

    def __init__(self, fin: int, fout: int, config: GeneratorConfig) -> None:
        super().__init__()
        fmid = min(fin, fout)
        self.conv_0 = nn.Conv2d(fin, fmid, 3, padding=1)
        self.conv_1 = nn.Conv2d(fmid, fout, 3, padding=1)
        self.norm_0 = SPADE(fin, config)
        self.norm_1 = SPADE(fmid, config)
        self.conv_s: nn.Conv2d | None = None
        self.norm_s: SPADE | None = None
        if fin != fout:
            self.conv_s = nn.Conv2d(fin, fout, 1, bias=False)
            self.norm_s = SPADE(fin, config)

    def forward(self, x: Tensor, normalise: Normalise) -> Tensor:
        """x [N, fin, h, w] -> [N, fout, h, w]."""
        # Safe in place: no backward pass reads this activation's input. Saves one feature map per norm.
        dx = self.conv_0(F.leaky_relu(normalise(self.norm_0, x), SLOPE, inplace=True))  # [N, fmid, h, w]
        dx = self.conv_1(F.leaky_relu(normalise(self.norm_1, dx), SLOPE, inplace=True))  # [N, fout, h, w]
        if self.conv_s is None or self.norm_s is None:
            shortcut = x
        else:
            shortcut = self.conv_s(normalise(self.norm_s, x))
        out: Tensor = shortcut + dx
        return out

    def normed_convs(self) -> Sequence[nn.Conv2d]:
        """The convs that take spectral norm: all of the block, none of SPADE's own."""
        return [conv for conv in (self.conv_0, self.conv_1, self.conv_s) if conv is not None]


def param_free_norm(norm: Norm, channels: int) -> nn.Module:
    """The norm without affine parameters that SPADE modulates: (x - mu) / sigma in equation 1 of the SPADE paper.

    mu and sigma are means over each channel of the batch (equations 2 and 3), or of each image with `instance`.
    """
    if norm == "instance":
        return nn.InstanceNorm2d(channels, eps=EPSILON)
    # `batch` and `syncbatch` are one module with the same keys. Training on several processes converts `syncbatch`.
    return nn.BatchNorm2d(channels, eps=EPSILON, affine=False)
