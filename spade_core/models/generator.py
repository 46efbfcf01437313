"""The SPADE generator: a start map, then residual blocks with x2 upsampling between (SPADE paper, figure 4, right)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import SLOPE
from spade_core.config import STYLE_DIM, ConfigError, GeneratorConfig
from spade_core.models.form import AnyGenerator, Form
from spade_core.models.spade import Normalise, ResidualBlock


class Generator(AnyGenerator):
    """The generator of the paper (SPADE paper, appendix A, figure 12), which the engines run."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        if config.architecture != "spade":
            raise ConfigError(
                f"[generator] expected architecture 'spade' but got {config.architecture!r}; "
                "spade_core.models.registry.new_generator builds every architecture"
            )
        self.config = config
        nf = config.nf
        self.fc = start_layer(config)
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

    def draw(self, form: Form, style: Tensor | None) -> Tensor:
        """The label maps in `form`, style [N, 256] or None -> the image before tanh [N, 3, H, W]."""
        start = form.start(self.fc) if style is None else self.style_start(style)
        image: Tensor = self(start.to(memory_format=form.memory_format), form.normalise)
        return image

    def style_start(self, style: Tensor) -> Tensor:
        """Style vectors [N, 256] -> the start map [N, 16 nf, h0, w0]."""
        return style_start(self.fc, style, self.config)

    def forward(self, start: Tensor, normalise: Normalise) -> Tensor:
        """Start map [N, 16 nf, h0, w0] -> the image before tanh [N, 3, H, W], H = h0 * 2^upsamplings."""
        x: Tensor = self.head_0(start, normalise)
        x = self.G_middle_0(doubled(x), normalise)
        if self.config.upsampling != "normal":
            x = doubled(x)
        x = self.G_middle_1(x, normalise)
        x = self.up_0(doubled(x), normalise)  # [N, 8 nf, ..]
        x = self.up_1(doubled(x), normalise)  # [N, 4 nf, ..]
        x = self.up_2(doubled(x), normalise)  # [N, 2 nf, ..]
        x = self.up_3(doubled(x), normalise)  # [N, nf, ..]
        if self.up_4 is not None:
            x = self.up_4(doubled(x), normalise)  # [N, nf / 2, ..]
        image: Tensor = self.conv_img(F.leaky_relu(x, SLOPE))
        return image


def start_layer(config: GeneratorConfig) -> nn.Module:
    """The layer that makes the start map: of the style vector, or of the label map at the start size."""
    channels, (h0, w0) = 16 * config.nf, config.level_sizes[0]
    if config.style:
        return nn.Linear(STYLE_DIM, channels * h0 * w0)
    return nn.Conv2d(config.semantic_nc, channels, 3, padding=1)


def style_start(fc: nn.Module, style: Tensor, config: GeneratorConfig) -> Tensor:
    """Style vectors [N, 256] through a linear `start_layer` -> the start map [N, 16 nf, h0, w0]."""
    h0, w0 = config.level_sizes[0]
    start: Tensor = fc(style)
    return start.view(-1, 16 * config.nf, h0, w0)


def doubled(x: Tensor) -> Tensor:
    """x [N, C, h, w] with every pixel repeated -> [N, C, 2 h, 2 w]."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
