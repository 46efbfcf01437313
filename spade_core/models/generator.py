"""The SPADE generator: a start map, then residual blocks with x2 upsampling between (SPADE paper, figure 4, right)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import SLOPE
from spade_core.config import STYLE_DIM, ConfigError, GeneratorConfig
from spade_core.models.spade import Normalise, ResidualBlock


class Generator(nn.Module):
    """Parameters and data flow. The two forms, `dense` and `codebook`, hand it a start and a `Normalise`."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        if config.architecture != "spade":
            raise ConfigError(
                f"[generator] expected architecture 'spade' but got {config.architecture!r}; "
                "baselines are made by spade_core.models.registry.new_generator"
            )
        self.config = config
        nf = config.nf
        start_h, start_w = config.level_sizes[0]
        self.fc: nn.Module
        if config.style:
            self.fc = nn.Linear(STYLE_DIM, 16 * nf * start_h * start_w)
        else:
            self.fc = nn.Conv2d(config.semantic_nc, 16 * nf, 3, padding=1)
        self.head_0 = ResidualBlock(16 * nf, 16 * nf, config)
        self.G_middle_0 = ResidualBlock(16 * nf, 16 * nf, config)
        self.G_middle_1 = ResidualBlock(16 * nf, 16 * nf, config)
        self.up_0 = ResidualBlock(16 * nf, 8 * nf, config)
        self.up_1 = ResidualBlock(8 * nf, 4 * nf, config)
        self.up_2 = ResidualBlock(4 * nf, 2 * nf, config)
        self.up_3 = ResidualBlock(2 * nf, nf, config)
        last = nf
        self.up_4: ResidualBlock | None = None
        if config.upsampling == "most":
            last = nf // 2
            self.up_4 = ResidualBlock(nf, last, config)
        self.conv_img = nn.Conv2d(last, 3, 3, padding=1)

    def style_start(self, style: Tensor) -> Tensor:
        """Style vectors [N, 256] -> start map [N, 16 nf, h0, w0]."""
        h0, w0 = self.config.level_sizes[0]
        start: Tensor = self.fc(style)
        return start.view(-1, 16 * self.config.nf, h0, w0)

    def forward(self, start: Tensor, normalise: Normalise) -> Tensor:
        """Start map [N, 16 nf, h0, w0] -> image before tanh [N, 3, H, W], H = h0 * 2^upsamplings."""
        x: Tensor = self.head_0(start, normalise)
        x = self.G_middle_0(_up(x), normalise)
        if self.config.upsampling != "normal":
            x = _up(x)
        x = self.G_middle_1(x, normalise)
        x = self.up_0(_up(x), normalise)  # [N, 8 nf, ..]
        x = self.up_1(_up(x), normalise)  # [N, 4 nf, ..]
        x = self.up_2(_up(x), normalise)  # [N, 2 nf, ..]
        x = self.up_3(_up(x), normalise)  # [N, nf, ..]
        if self.up_4 is not None:
            x = self.up_4(_up(x), normalise)  # [N, nf / 2, ..]
        image: Tensor = self.conv_img(F.leaky_relu(x, SLOPE))
        return image


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
