"""Packs a generator's weights for the native kernels, once at load: folded, blocked, in the layout of an ISA."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, to_entries
from kernels.ops.codebook import pack_bias, pack_codebook, pack_codebook_int8
from kernels.ops.conv import PackedConv, pack_conv
from serving.engines.cpu.fold import fold, symbol_table
from serving.engines.cpu.int8_rounding import round_codebook
from serving.engines.cpu.rounding import Patches, drawn_patches, round_taps
from spade_core.config import GeneratorConfig
from spade_core.files.weights import Weights
from spade_core.models.shapes import block_widths

Arrays = Mapping[str, Float32]
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


def pack_generator(weights: Weights, isa: Isa, threads: int, *, int8: bool = False) -> PackedGenerator:
    """Pack every weight of a generator. Each of the `threads` packs whole blocks.

    int8: the codebooks of `int8_norms` multiply in int8.
    """
    config, arrays = weights.config, weights.generator
    drawn = drawn_patches(config) if int8 else None

    def pack(walked: tuple[str, int, int]) -> PackedBlock:
        name, level, shift = walked
        return _block(_part(arrays, name), level, shift, config, isa, drawn)

    with ThreadPoolExecutor(threads) as pool:
        blocks = tuple(pool.map(pack, walk(config)))
    return PackedGenerator(config, _start(arrays, config, isa), blocks, _conv(arrays, "conv_img", isa))


def walk(config: GeneratorConfig) -> list[tuple[str, int, int]]:
    """The blocks in the order in which they run: name, level, and 1 where an upsampling comes first, else 0."""
    middle = int(config.upsampling != "normal")
    head, middle_0, middle_1, *ups = block_widths(config)
    walk = [(head, 0, 0), (middle_0, 1, 1), (middle_1, 1 + middle, middle)]
    return walk + [(up, 2 + middle + i, 1) for i, up in enumerate(ups)]


def _part(arrays: Arrays, name: str) -> Arrays:
    """The arrays of a part, by their keys without its name; empty where there is no such part."""
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}


def _block(
    block: Arrays, level: int, shift: int, config: GeneratorConfig, isa: Isa, drawn: Patches | None
) -> PackedBlock:
    shortcut = "conv_s.weight" in block
    int8 = int8_norms(level, config, shortcut=shortcut) if drawn is not None else []

    def norm(name: str) -> PackedNorm:
        return _norm(_part(block, name), config, isa, drawn if name in int8 else None)

    return PackedBlock(
        level,
        shift,
        norm("norm_0"),
        _conv(block, "conv_0", isa),
        norm("norm_1"),
        _conv(block, "conv_1", isa),
        norm("norm_s") if shortcut else None,
        _conv(block, "conv_s", isa) if shortcut else None,
    )


def int8_norms(level: int, config: GeneratorConfig, *, shortcut: bool) -> list[str]:
    """The norms of a block whose codebook multiplies in int8: each norm adds about the same error to the image.

    In the last blocks: the two wider norms, which take twice the time of the third. In the block before the last ones:
    the norm that adds the smaller error. In the middle blocks: both norms, since reading their weights takes most of
    their time, and int8 weights are half as large. In the first block: none, since its norms take little time.
    """
    if not shortcut:
        return ["norm_0", "norm_1"] if level > 0 else []
    before = config.upsamplings - INT8_LEVELS
    return ["norm_0", "norm_s"] if level > before else ["norm_0"] if level == before else []


def _norm(norm: Arrays, config: GeneratorConfig, isa: Isa, drawn: Patches | None) -> PackedNorm:
    _check_range(norm, isa)
    folded = fold(norm, config)
    channels, taps = len(folded.bias) // 2, len(folded.table)
    weight = folded.weight
    if drawn is None:
        if input_dtype(isa) == "bf16":
            weight = np.ascontiguousarray(round_taps(weight.reshape(taps, -1).T).T.reshape(weight.shape))
        packed = pack_codebook(isa, weight, channels)
        return PackedNorm(channels, folded.table, folded.shared_bias, packed, pack_bias(folded.bias), folded.instance)
    rounded = round_codebook(folded.table, folded.shared_bias, weight, folded.bias, drawn)
    a, b = np.split(rounded.interior, 2, axis=1)
    return PackedNorm(
        channels, rounded.table, rounded.shared_bias, pack_codebook_int8(rounded.weight, channels),
        pack_bias(folded.bias), folded.instance, pack_bias(rounded.scale),
        to_entries(a, b, isa_dtype(isa)),
    )  # fmt: skip


def _check_range(norm: Arrays, isa: Isa) -> None:
    """Raises ValueError where the ISA stores float16 and a norm's running statistics reach beyond float16's range."""
    if isa_dtype(isa) != "float16" or "param_free_norm.running_mean" not in norm:
        return
    mean, variance = norm["param_free_norm.running_mean"], norm["param_free_norm.running_var"]
    reach = float((np.abs(mean) + 8 * np.sqrt(variance)).max())
    if reach > LARGEST_FLOAT16:
        raise ValueError(
            f"[engine] expected activations within float16's {LARGEST_FLOAT16:.0f} on isa {isa} but the statistics "
            f"of a norm reach {reach:.3g}; use precision fp32, or set SPADE_CPU_ISA=avx512bf16"
        )


def _conv(arrays: Arrays, name: str, isa: Isa) -> PackedConv:
    weight = arrays[f"{name}.weight"]
    if input_dtype(isa) == "bf16":
        weight = round_taps(weight.reshape(*weight.shape[:2], -1)).reshape(weight.shape)
    return pack_conv(isa, weight, arrays.get(f"{name}.bias"))


def _start(arrays: Arrays, config: GeneratorConfig, isa: Isa) -> PackedStart:
    weight, bias = arrays["fc.weight"], arrays["fc.bias"]
    if not config.style:
        return PackedStart(None, symbol_table(weight, config), bias)  # [9, symbols + 1, 16 nf]
    # Rows of fc in the order of a plain map's memory, so that the product with the style is the stored start map.
    h0, w0 = config.level_sizes[0]
    order = np.arange(16 * config.nf * h0 * w0).reshape(-1, BLOCK, h0, w0).transpose(2, 0, 3, 1).ravel()
    weight, bias = weight[order], bias[order]
    return PackedStart(pack_conv(isa, weight[:, :, None, None], bias), None, bias)
