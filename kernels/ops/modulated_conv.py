"""Modulated conv: `modulate`, then `conv`, in bands of rows that stay in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa
from kernels.layouts import BLOCK, Array, Float32, Int32, blocks
from kernels.ops.conv import convolution
from kernels.ops.modulate import modulation
from kernels.program import Entries, Step, StepError, expect_rank, make_step

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class Shortcut:
    """A second modulated conv, 1x1, without bias and activation, that is added to the first.

    Attributes:
        x: plain map T [N, H >> shift, CBs, W >> shift, 32].
        entries, index, mean, rstd, shift: as in `modulate`.
        weight: from `pack_conv` for the same isa, 1x1.
    """

    x: Array
    entries: Entries | None
    index: Int32 | None
    weight: npt.NDArray[np.uint8]
    in_channels: int
    mean: Float32 | None = None
    rstd: Float32 | None = None
    shift: int = 0


def modulated_conv(
    isa: Isa,
    x: Array,
    entries: Entries | None,
    index: Int32 | None,
    weight: npt.NDArray[np.uint8],
    bias: Float32,
    residual: Array | None,
    y: Array,
    *,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    mean: Float32 | None = None,
    rstd: Float32 | None = None,
    shift: int = 0,
    leaky: bool = True,
    residual_shift: int = 0,
    shortcut: Shortcut | None = None,
) -> Step:
    """`modulate`, then `conv`, in bands of rows that stay in the cache: the same bits, without the map between.

    Args: see there. With a shortcut there is no residual.
    """
    op = "modulated_conv"
    expect_rank(op, "y", y, 5)
    n, height, _, width, _ = y.shape
    size = (n, height, blocks(in_channels), width)
    arrays, numbers, kept = modulation(op, isa, x, entries, index, mean, rstd, size, shift, leaky)
    conv_arrays, conv_numbers = convolution(
        op, isa, weight, bias, residual, y, in_channels, out_channels, kernel_size, residual_shift
    )
    arrays |= _prefixed("conv_", conv_arrays)
    numbers |= _prefixed("conv_", conv_numbers)
    if shortcut is not None:
        if residual is not None:
            raise StepError(f"[{op}] expected a residual or a shortcut but got both")
        more_arrays, more_numbers, more_kept = _shortcut(isa, shortcut, y, out_channels)
        arrays, numbers, kept = arrays | more_arrays, numbers | more_numbers, (*kept, *more_kept)
    step = make_step(op, isa, arrays, **numbers)
    return Step(step.kind, step.record, (*step.arrays, *kept))


def _shortcut(
    isa: Isa, of: Shortcut, y: Array, out_channels: int
) -> tuple[dict[str, Array | None], dict[str, int], tuple[Entries, ...]]:
    op, (n, height, out_blocks, width, _) = "modulated_conv shortcut", y.shape
    size = (n, height, blocks(of.in_channels), width)
    arrays, numbers, kept = modulation(
        op, isa, of.x, of.entries, of.index, of.mean, of.rstd, size, of.shift, leaky=False
    )
    no_bias = np.zeros(out_blocks * BLOCK, np.float32)
    conv_arrays, conv_numbers = convolution(op, isa, of.weight, no_bias, None, y, of.in_channels, out_channels, 1, 0)
    arrays = _prefixed("shortcut_", arrays) | _prefixed("shortcut_conv_", conv_arrays)
    numbers = _prefixed("shortcut_", numbers) | _prefixed("shortcut_conv_", conv_numbers)
    return arrays, numbers | {"has_shortcut": 1}, kept


def _prefixed(prefix: str, values: Mapping[str, _Value]) -> dict[str, _Value]:
    return {prefix + name: value for name, value in values.items()}
