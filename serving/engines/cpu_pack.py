"""A generator's weights as the native kernels read them: folded, blocked, packed once at load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kernels.codebook import pack_bias
from kernels.layouts import BLOCK, Float32, pad_channels
from kernels.steps import Tier, pack_codebook, pack_conv
from spade_core.codebook import fold, symbol_table
from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.generator import Generator
from spade_core.spade import SPADE, ResidualBlock

Packed = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PackedNorm:
    """One SPADE norm. `instance`: x is normalised with its own statistics first; batch statistics are folded in.

    Attributes:
        table: float32 [k*k, symbols + 1, 128]. shared_bias: float32 [128].
        weight: packed [k*k * 128, 2C]. bias: float32 [CB, 2, 32].
    """

    channels: int
    table: Float32
    shared_bias: Float32
    weight: Packed
    bias: Float32
    instance: bool


@dataclass(frozen=True)
class PackedConv:
    """One conv: packed weight, and bias float32 [CB * 32]."""

    in_channels: int
    out_channels: int
    kernel_size: int
    weight: Packed
    bias: Float32


@dataclass(frozen=True)
class PackedBlock:
    """One residual block. `shift`: 1 if its input is upsampled by 2 first. `level`: index of its resolution level."""

    level: int
    shift: int
    norm_0: PackedNorm
    conv_0: PackedConv
    norm_1: PackedNorm
    conv_1: PackedConv
    norm_s: PackedNorm | None
    conv_s: PackedConv | None

    @property
    def norms(self) -> tuple[PackedNorm, ...]:
        """In the order in which they run."""
        return tuple(norm for norm in (self.norm_0, self.norm_s, self.norm_1) if norm is not None)


@dataclass(frozen=True)
class PackedStart:
    """`fc`: a conv of one pixel from the style to the whole start map, or the table of a conv on the label map."""

    style: PackedConv | None
    table: Float32 | None  # [9, symbols + 1, 16 nf]
    bias: Float32


@dataclass(frozen=True)
class PackedGenerator:
    """Everything a program needs of a generator."""

    config: GeneratorConfig
    start: PackedStart
    blocks: tuple[PackedBlock, ...]
    conv_img: PackedConv


def pack_generator(generator: Generator, tier: Tier, threads: int) -> PackedGenerator:
    """Pack every weight of a generator in eval mode, float32, on the CPU; a block is packed by one of `threads`."""
    config = generator.config

    def pack(walked: tuple[ResidualBlock, int, int]) -> PackedBlock:
        with torch.no_grad():  # holds for one thread
            return _block(*walked, config, tier)

    with ThreadPoolExecutor(threads) as pool:
        blocks = tuple(pool.map(pack, walk(generator)))
    with torch.no_grad():
        return PackedGenerator(config, _start(generator, tier), blocks, _conv(generator.conv_img, tier))


def walk(generator: Generator) -> list[tuple[ResidualBlock, int, int]]:
    """The blocks in order, each with its level and the upsampling before it."""
    middle = int(generator.config.upsampling != "normal")
    ups = [generator.up_0, generator.up_1, generator.up_2, generator.up_3]
    if generator.up_4 is not None:
        ups.append(generator.up_4)
    walk = [(generator.head_0, 0, 0), (generator.G_middle_0, 1, 1), (generator.G_middle_1, 1 + middle, middle)]
    return walk + [(up, 2 + middle + i, 1) for i, up in enumerate(ups)]


def _block(block: ResidualBlock, level: int, shift: int, config: GeneratorConfig, tier: Tier) -> PackedBlock:
    return PackedBlock(
        level,
        shift,
        _norm(block.norm_0, config, tier),
        _conv(block.conv_0, tier),
        _norm(block.norm_1, config, tier),
        _conv(block.conv_1, tier),
        None if block.norm_s is None else _norm(block.norm_s, config, tier),
        None if block.conv_s is None else _conv(block.conv_s, tier),
    )


def _norm(spade: SPADE, config: GeneratorConfig, tier: Tier) -> PackedNorm:
    folded = fold(spade, config)
    channels = len(folded.bias) // 2
    taps = config.spade_kernel**2
    table = _array(folded.table).reshape(taps, config.symbols + 1, -1)
    weight = pack_codebook(tier, _array(folded.weight), channels)
    bias = pack_bias(_array(folded.bias))
    return PackedNorm(channels, table, _array(folded.shared_bias), weight, bias, folded.norm is not None)


def _conv(conv: nn.Conv2d, tier: Tier) -> PackedConv:
    out_channels, in_channels, kernel_size, _ = conv.weight.shape
    bias = np.zeros(out_channels, np.float32) if conv.bias is None else _array(conv.bias)
    return PackedConv(in_channels, out_channels, kernel_size, pack_conv(tier, _array(conv.weight)), pad_channels(bias))


def _start(generator: Generator, tier: Tier) -> PackedStart:
    config, fc = generator.config, generator.fc
    assert isinstance(fc.bias, Tensor)
    if isinstance(fc, nn.Conv2d):
        table = symbol_table(fc.weight, config).view(9, config.symbols + 1, -1)  # [9, symbols + 1, 16 nf]
        return PackedStart(None, _array(table), _array(fc.bias))
    assert isinstance(fc, nn.Linear)
    # The rows of fc in the order of a plain map, so that the product of the style is the start map as it is stored.
    h0, w0 = config.level_sizes[0]
    order = torch.arange(16 * config.nf * h0 * w0).view(-1, BLOCK, h0, w0).permute(2, 0, 3, 1).flatten()
    weight, bias = _array(fc.weight[order]), _array(fc.bias[order])
    conv = PackedConv(STYLE_DIM, len(bias), 1, pack_conv(tier, weight[:, :, None, None]), bias)
    return PackedStart(conv, None, bias)


def _array(tensor: Tensor) -> Float32:
    return np.ascontiguousarray(tensor.detach().float().numpy())
