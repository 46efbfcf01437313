"""Untrained weights from a seed, for runs without a checkpoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kernels.constants import HIDDEN, SLOPE
from spade_core.config import GeneratorConfig
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator
from spade_core.models.spade import SPADE, ResidualBlock

# Standard deviation of the image before tanh. Most pixels then avoid the flat ends of tanh.
IMAGE_STD = 0.6
# Standard deviation of gamma and beta: nearly as strong as x, so that the layout shows through the noise.
MODULATION_STD = 0.8


def seeded_generator(config: GeneratorConfig, seed: int = 0) -> Generator:
    """A generator in eval mode with random weights that keep every layer's variance near 1 and the image's at 0.6^2.

    The same seed gives the same weights on every machine: nothing is measured on data.
    """
    random = torch.Generator().manual_seed(seed)
    generator = Generator(config)
    with torch.no_grad():
        if isinstance(generator.fc, nn.Linear):
            _fill(generator.fc.weight, generator.fc.in_features, 1.0, random)
        else:
            # A 3x3 patch of a one-hot map holds nine ones, for any number of classes.
            assert isinstance(generator.fc, nn.Conv2d)
            _fill(generator.fc.weight, 9, 1.0, random)
        assert isinstance(generator.fc.bias, Tensor)
        generator.fc.bias.zero_()
        for module in generator.modules():
            if isinstance(module, SPADE):
                _fill_spade(module, random)
            elif isinstance(module, ResidualBlock):
                _fill_block(module, random)
        fan_in = generator.conv_img.in_channels * 9
        _fill(generator.conv_img.weight, fan_in, IMAGE_STD / _LEAKY_RMS, random)
        assert generator.conv_img.bias is not None
        generator.conv_img.bias.zero_()
    return generator.eval()


def seeded_encoder(nf: int, seed: int = 0) -> StyleEncoder:
    """A style encoder in eval mode with random weights; the mean it returns has variance near 1."""
    random = torch.Generator().manual_seed(seed)
    encoder = StyleEncoder(nf)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _fill(module.weight, module.weight[0].numel(), 1.0 / _LEAKY_RMS, random)
            if isinstance(module, nn.Linear):
                module.bias.zero_()
        encoder.fc_var.weight.mul_(0.1)
    return encoder.eval()


_LEAKY_RMS = math.sqrt((1 + SLOPE**2) / 2)  # root mean square of leaky ReLU(x) for standard normal x


def _fill(weight: Tensor, fan_in: int, out_std: float, random: torch.Generator) -> None:
    weight.normal_(0, out_std / math.sqrt(fan_in), generator=random)


def _fill_spade(spade: SPADE, random: torch.Generator) -> None:
    shared = spade.mlp_shared[0]
    assert isinstance(shared, nn.Conv2d)
    assert shared.bias is not None
    taps = shared.kernel_size[0] ** 2
    _fill(shared.weight, taps, 1.0, random)
    shared.bias.zero_()
    for conv in (spade.mlp_gamma, spade.mlp_beta):
        # ReLU of a standard normal has a mean square of one half.
        _fill(conv.weight, taps * HIDDEN, MODULATION_STD * math.sqrt(2), random)
        assert conv.bias is not None
        conv.bias.zero_()


def _fill_block(block: ResidualBlock, random: torch.Generator) -> None:
    # Running statistics stay 0 and 1, so the block must keep the variance: each branch carries one half.
    gain = 1 / math.sqrt(1 + 2 * MODULATION_STD**2)  # the variance after SPADE is (1 + gamma)^2 + beta^2
    for conv, share in ((block.conv_0, 1.0), (block.conv_1, math.sqrt(0.5))):
        _fill(conv.weight, conv.in_channels * 9, share * gain / _LEAKY_RMS, random)
        assert conv.bias is not None
        conv.bias.zero_()
    if block.conv_s is not None:
        _fill(block.conv_s.weight, block.conv_s.in_channels, math.sqrt(0.5) * gain, random)
