"""The multiscale PatchGAN discriminator (SPADE paper, appendix A, figure 13; pix2pixHD, section 3.2, equation 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import EPSILON, SLOPE
from spade_core.config import GeneratorConfig
from spade_core.models.label_patches import KERNEL, PADDING, STRIDE, LabelPatches, halved_one_hot
from spade_core.models.symbol_table import embed, symbol_table

SCALES = 2  # num_D of the paper
LAYERS = 4  # convs of a PatchGAN before the last


class PatchDiscriminator(nn.Module):
    """One PatchGAN: `layers` convs 4x4 that double the width up to 8 ndf, then one to a score per patch.

    The convs between the first and the last have instance norm and no bias. `with_spectral_norm` adds spectral norm.
    """

    def __init__(self, in_channels: int, ndf: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        width = ndf
        self.model0: nn.Sequential = nn.Sequential(
            _conv(in_channels, width, stride=STRIDE, bias=True), nn.LeakyReLU(SLOPE)
        )
        for i in range(1, layers):
            fin, width = width, min(2 * width, 8 * ndf)
            normed = nn.Sequential(
                _conv(fin, width, stride=1 if i == layers - 1 else 2, bias=False),
                nn.InstanceNorm2d(width, eps=EPSILON),
            )
            self.add_module(f"model{i}", nn.Sequential(normed, nn.LeakyReLU(SLOPE)))
        self.add_module(f"model{layers}", nn.Sequential(_conv(width, 1, stride=1, bias=True)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [N, in_channels, H, W] -> the output of every layer, the scores [N, 1, h, w] last."""
        return self._rest(self.model0(x))

    def judge(self, labels: Tensor, image: Tensor) -> list[Tensor]:
        """The outputs of `forward`, from what the map adds to the first conv [N, ndf, h, w] and image [N, 3, H, W]."""
        weight = self.first.weight[:, -image.shape[1] :]
        x = labels + F.conv2d(image, weight, stride=STRIDE, padding=PADDING)
        return self._rest(F.leaky_relu(x, SLOPE, inplace=True))

    @property
    def first(self) -> nn.Conv2d:
        """The conv that reads label map and image."""
        conv = self.model0[0]
        assert isinstance(conv, nn.Conv2d)
        return conv

    def _rest(self, x: Tensor) -> list[Tensor]:
        outputs = [x]
        for i in range(1, self.layers + 1):
            x = self.get_submodule(f"model{i}")(x)
            outputs.append(x)
        return outputs


class Discriminator(nn.Module):
    """PatchGANs on the input at full size, at half, and so on, halved by a 3x3 average.

    The keys are `discriminator_i.modelN.*`.

    Args:
        semantic_nc: channels of the one-hot map.
        ndf: width of the first conv, 64 in the paper.
        scales: number of PatchGANs, 2 in the paper.
        layers: convs of each PatchGAN before the last, 4 in the paper.
    """

    def __init__(self, semantic_nc: int, ndf: int = 64, scales: int = SCALES, layers: int = LAYERS) -> None:
        super().__init__()
        self.scales = scales
        for i in range(scales):
            self.add_module(f"discriminator_{i}", PatchDiscriminator(semantic_nc + 3, ndf, layers))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """One-hot map and image, concatenated in this order, [N, semantic_nc + 3, H, W], image in -1..1.

        Returns for each scale, the full size first, the outputs of all layers, the scores [N, 1, h, w] last. Fake and
        real images may share a batch, since no norm mixes images.
        """
        outputs = []
        for i in range(self.scales):
            outputs.append(self._scale(i)(x))
            if i + 1 < self.scales:
                x = _halved(x)
        return outputs

    def label_features(self, symbols: Tensor, patches: LabelPatches, config: GeneratorConfig) -> list[Tensor]:
        """What the label maps add to the first conv of each scale [N, ndf, h, w], the bias included.

        Every image judged with these maps and weights shares these features, so fake and real images need them once.

        Args:
            symbols: integers [N, H, W].
            patches: `label_patches` of the symbols.
        """
        found = []
        halved: Tensor | None = None
        for i in range(self.scales):
            conv = self._scale(i).first
            assert conv.bias is not None
            weight = conv.weight[:, : config.semantic_nc]
            if i == 0:
                rows = embed(symbol_table(weight, config), conv.bias, patches.patches)  # [U, ndf]
                found.append(F.embedding(patches.index, rows).permute(0, 3, 1, 2))
                continue
            halved = halved_one_hot(symbols, config) if halved is None else _halved(halved)
            found.append(F.conv2d(halved.to(weight.dtype), weight, conv.bias, stride=STRIDE, padding=PADDING))
        return found

    def judge(self, labels: Sequence[Tensor], image: Tensor) -> list[list[Tensor]]:
        """The outputs of `forward`, from `label_features` and images [N, 3, H, W]."""
        outputs = []
        for i, features in enumerate(labels):
            outputs.append(self._scale(i).judge(features, image))
            if i + 1 < self.scales:
                image = _halved(image)
        return outputs

    def _scale(self, i: int) -> PatchDiscriminator:
        network = self.get_submodule(f"discriminator_{i}")
        assert isinstance(network, PatchDiscriminator)
        return network


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def _conv(fin: int, fout: int, *, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(fin, fout, KERNEL, stride=stride, padding=PADDING, bias=bias)
