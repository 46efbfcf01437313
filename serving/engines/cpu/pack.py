"""Packs a generator's weights for the native kernels, once at load: folded, blocked, in the layout of an ISA."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, to_entries
from kernels.ops.codebook import pack_bias, pack_codebook, pack_codebook_int8
from kernels.ops.conv import PackedConv, pack_conv
from serving.engines.cpu.rounding import Patches, drawn_patches, round_codebook, round_taps
from spade_core.codebook.fold import fold
from spade_core.config import GeneratorConfig
from spade_core.models.generator import Generator
from spade_core.models.spade import SPADE, ResidualBlock
from spade_core.models.symbol_table import symbol_table

Packed = npt.NDArray[np.uint8]

INT8_LEVELS = 3  # the largest levels, which take most of the time, multiply their codebooks in int8
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class PackedNorm:
    """One SPADE norm. The statistics of a batch norm are folded in.

    Attributes:
        channels: C.
        table: float32 [k*k, symbols + 1, 128] of the embed, with its shared_bias float32 [128].
        weight: packed [k*k * 128, 2C] of the codebook, with its bias float32 [CB, 2, 32].
        instance: whether x is first normalised with its own statistics.
        scale: float32 [CB, 2, 32], of a codebook in int8; see `kernels.ops.codebook.Int8`.
        interior: T [CB, symbols, 2, 32], of a codebook in int8.
    """

    channels: int
    table: Float32
    shared_bias: Float32
    weight: Packed
    bias: Float32
    instance: bool
    scale: Float32 | None = None
    interior: Array | None = None


@dataclass(frozen=True)
class PackedBlock:
    """One residual block.

    Attributes:
        level: index of the block's resolution level.
        shift: 1 where the block's input is first upsampled by 2, else 0.
    """

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
        """The block's norms in the order in which they run."""
        return tuple(norm for norm in (self.norm_0, self.norm_s, self.norm_1) if norm is not None)


@dataclass(frozen=True)
class PackedStart:
    """The first layer, `fc`. One of `style` and `table` is set.

    Attributes:
        style: a 1x1 conv of one pixel, the style, to all values of the start map.
        table: float32 [9, symbols + 1, 16 nf], a 3x3 conv on the label map.
        bias: float32, added by either.
    """

    style: PackedConv | None
    table: Float32 | None
    bias: Float32


@dataclass(frozen=True)
class PackedGenerator:
    """All packed weights of a generator."""

    config: GeneratorConfig
    start: PackedStart
    blocks: tuple[PackedBlock, ...]
    conv_img: PackedConv


def pack_generator(generator: Generator, isa: Isa, threads: int, *, int8: bool = False) -> PackedGenerator:
    """Pack every weight of a float32 generator in eval mode on the CPU. Each of the `threads` packs whole blocks.

    int8: the codebooks of `int8_norms` multiply in int8.
    """
    config = generator.config
    drawn = drawn_patches(config) if int8 else None

    def pack(walked: tuple[ResidualBlock, int, int]) -> PackedBlock:
        with torch.no_grad():  # no_grad is a setting of the thread
            return _block(*walked, config, isa, drawn)

    with ThreadPoolExecutor(threads) as pool:
        blocks = tuple(pool.map(pack, walk(generator)))
    with torch.no_grad():
        return PackedGenerator(config, _start(generator, isa), blocks, _conv(generator.conv_img, isa))


def walk(generator: Generator) -> list[tuple[ResidualBlock, int, int]]:
    """The blocks in the order in which they run, each with its level and with 1 where an upsampling comes first."""
    middle = int(generator.config.upsampling != "normal")
    ups = [generator.up_0, generator.up_1, generator.up_2, generator.up_3]
    if generator.up_4 is not None:
        ups.append(generator.up_4)
    walk = [(generator.head_0, 0, 0), (generator.G_middle_0, 1, 1), (generator.G_middle_1, 1 + middle, middle)]
    return walk + [(up, 2 + middle + i, 1) for i, up in enumerate(ups)]


def _block(
    block: ResidualBlock, level: int, shift: int, config: GeneratorConfig, isa: Isa, drawn: Patches | None
) -> PackedBlock:
    int8 = int8_norms(block, level, config) if drawn is not None else []

    def norm(spade: SPADE) -> PackedNorm:
        return _norm(spade, config, isa, drawn if any(spade is one for one in int8) else None)

    return PackedBlock(
        level,
        shift,
        norm(block.norm_0),
        _conv(block.conv_0, isa),
        norm(block.norm_1),
        _conv(block.conv_1, isa),
        None if block.norm_s is None else norm(block.norm_s),
        None if block.conv_s is None else _conv(block.conv_s, isa),
    )


def int8_norms(block: ResidualBlock, level: int, config: GeneratorConfig) -> list[SPADE]:
    """The norms of a block whose codebook multiplies in int8: each norm adds about the same error to the image.

    In the last blocks: the two wider norms, which take twice the time of the third. In the block before the last ones:
    the norm that adds the smaller error. In the middle blocks: both norms, since reading their weights takes most of
    their time, and int8 weights are half as large. In the first block: none, since its norms take little time.
    """
    if block.norm_s is None:
        return [block.norm_0, block.norm_1] if level > 0 else []
    before = config.upsamplings - INT8_LEVELS
    return [block.norm_0, block.norm_s] if level > before else [block.norm_0] if level == before else []


def _norm(spade: SPADE, config: GeneratorConfig, isa: Isa, drawn: Patches | None) -> PackedNorm:
    _check_range(spade, isa)
    folded = fold(spade, config)
    channels = len(folded.bias) // 2
    taps = config.spade_kernel**2
    table = _array(folded.table).reshape(taps, config.symbols + 1, -1)
    shared_bias, weight, bias = _array(folded.shared_bias), _array(folded.weight), _array(folded.bias)
    instance = folded.norm is not None
    if drawn is None:
        if input_dtype(isa) == "bf16":
            weight = np.ascontiguousarray(round_taps(weight.reshape(taps, -1).T).T.reshape(weight.shape))
        packed = pack_codebook(isa, weight, channels)
        return PackedNorm(channels, table, shared_bias, packed, pack_bias(bias), instance)
    rounded = round_codebook(table, shared_bias, weight, bias, drawn)
    a, b = np.split(rounded.interior, 2, axis=1)
    return PackedNorm(
        channels, rounded.table, rounded.shared_bias, pack_codebook_int8(rounded.weight, channels),
        pack_bias(bias), instance, pack_bias(rounded.scale),
        to_entries(a, b, isa_dtype(isa)),
    )  # fmt: skip


def _check_range(spade: SPADE, isa: Isa) -> None:
    """Raises ValueError where the ISA stores float16 and a norm's running statistics reach beyond float16's range."""
    norm = spade.param_free_norm
    if isa_dtype(isa) != "float16" or not isinstance(norm, nn.BatchNorm2d):
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    reach = float((norm.running_mean.abs() + 8 * norm.running_var.sqrt()).max())
    if reach > LARGEST_FLOAT16:
        raise ValueError(
            f"[engine] expected activations within float16's {LARGEST_FLOAT16:.0f} on isa {isa} but the statistics "
            f"of a norm reach {reach:.3g}; use precision fp32, or set SPADE_CPU_ISA=avx512bf16"
        )


def _conv(conv: nn.Conv2d, isa: Isa) -> PackedConv:
    weight = _array(conv.weight)
    if input_dtype(isa) == "bf16":
        weight = round_taps(weight.reshape(*weight.shape[:2], -1)).reshape(weight.shape)
    return pack_conv(isa, weight, None if conv.bias is None else _array(conv.bias))


def _start(generator: Generator, isa: Isa) -> PackedStart:
    config, fc = generator.config, generator.fc
    assert isinstance(fc.bias, Tensor)
    if isinstance(fc, nn.Conv2d):
        table = symbol_table(fc.weight, config).view(9, config.symbols + 1, -1)  # [9, symbols + 1, 16 nf]
        return PackedStart(None, _array(table), _array(fc.bias))
    assert isinstance(fc, nn.Linear)
    # Rows of fc in the order of a plain map's memory, so that the product with the style is the stored start map.
    h0, w0 = config.level_sizes[0]
    order = torch.arange(16 * config.nf * h0 * w0).view(-1, BLOCK, h0, w0).permute(2, 0, 3, 1).flatten()
    weight, bias = _array(fc.weight[order]), _array(fc.bias[order])
    return PackedStart(pack_conv(isa, weight[:, :, None, None], bias), None, bias)


def _array(tensor: Tensor) -> Float32:
    return np.ascontiguousarray(tensor.detach().float().numpy())
