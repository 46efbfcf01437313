"""pix2pixHD's global generator, plain and with SPADE in place of its norms (pix2pixHD paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import EPSILON
from spade_core.config import DOWNSAMPLINGS, GeneratorConfig
from spade_core.models.form import AnyGenerator, Form
from spade_core.models.spade import SPADE, Normalise, param_free_norm

AFFINE_STD = 0.02  # of a batch norm's weights at the start
BLOCKS = 9  # residual blocks at the smallest size


class EncoderDecoder(AnyGenerator):
    """pix2pixHD's global generator.

    Conv 7x7 to nf, four stride-2 convs that double the width, nine residual blocks, four transposed convs back, conv
    7x7 to 3; reflect padding, ReLU. A residual block has no ReLU after its second norm (Johnson et al., ECCV 2016).
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.nf << i for i in range(DOWNSAMPLINGS + 1)]  # nf .. 16 nf
        self.conv_in = self._normed(nn.Conv2d(config.semantic_nc, widths[0], 7, bias=False), reflect=3)
        self.down = nn.ModuleList(
            self._normed(nn.Conv2d(fin, fout, 3, stride=2, padding=1, bias=False)) for fin, fout in pairwise(widths)
        )
        self.middle = nn.ModuleList(
            self._normed(nn.Conv2d(widths[-1], widths[-1], 3, bias=False), reflect=1) for _ in range(2 * BLOCKS)
        )
        self.up = nn.ModuleList(
            self._normed(nn.ConvTranspose2d(fin, fout, 3, stride=2, padding=1, output_padding=1, bias=False))
            for fin, fout in pairwise(widths[::-1])
        )
        self.conv_img = nn.Conv2d(widths[0], 3, 7)

    def draw(self, form: Form, style: Tensor | None) -> Tensor:  # noqa: ARG002 - the architecture takes no style
        """The label maps in `form` -> the image before tanh [N, 3, H, W]."""
        x = F.relu(self.conv_in(form.segmap(1), form.normalise))  # [N, nf, H, W]
        for layer in self.down:
            x = F.relu(layer(x, form.normalise))  # [N, 2 nf, H / 2, W / 2] .. [N, 16 nf, H / 16, W / 16]
        for first, second in zip(self.middle[::2], self.middle[1::2], strict=True):
            x = x + second(F.relu(first(x, form.normalise)), form.normalise)
        for layer in self.up:
            x = F.relu(layer(x, form.normalise))
        image: Tensor = self.conv_img(F.pad(x, (3, 3, 3, 3), mode="reflect"))
        return image

    def new_norm(self, channels: int) -> nn.Module:
        """The norm behind a conv of `channels` outputs; batch norms have an affine, weights from N(1, 0.02)."""
        if self.config.norm == "instance":
            return param_free_norm("instance", channels)
        norm = nn.BatchNorm2d(channels, eps=EPSILON)
        nn.init.normal_(norm.weight, 1.0, AFFINE_STD)
        return norm

    def _normed(self, conv: nn.Conv2d | nn.ConvTranspose2d, reflect: int = 0) -> NormedConv:
        return NormedConv(conv, reflect, self.new_norm(conv.out_channels))


class SpadeEncoderDecoder(EncoderDecoder):
    """pix2pixHD's global generator with SPADE in place of each norm: "pix2pixHD++ w/ SPADE" in the paper's table 3."""

    def new_norm(self, channels: int) -> nn.Module:
        """A SPADE norm of `channels` channels."""
        return SPADE(channels, self.config)


class NormedConv(nn.Module):
    """Reflect padding, a conv without bias (the norm would subtract the bias), and a norm, plain or SPADE."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, reflect: int, norm: nn.Module) -> None:
        super().__init__()
        self.reflect = reflect
        self.conv = conv
        self.norm = norm

    def forward(self, x: Tensor, normalise: Normalise) -> Tensor:
        """x [N, in, h, w] -> [N, out, h', w'] before its activation."""
        if self.reflect:
            x = F.pad(x, (self.reflect,) * 4, mode="reflect")
        x = self.conv(x)
        out: Tensor = normalise(self.norm, x) if isinstance(self.norm, SPADE) else self.norm(x)
        return out

    def normed_convs(self) -> Sequence[nn.Conv2d | nn.ConvTranspose2d]:
        """The conv that takes spectral norm."""
        return [self.conv]
