"""Modulated conv: `modulate`, then `conv`, in bands of rows that stay in the cache.

The specification is `conv_numpy` of `modulate_numpy`, with the map between rounded to I. The step gives the same bits
as a modulate step and a conv step.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernels.isa import Isa
from kernels.layouts import Array, blocks
from kernels.ops.conv import PackedConv, conv_arguments
from kernels.ops.modulate import Modulation, modulate_arguments
from kernels.program import Arguments, Step, StepError, expect_rank

OP = "modulated_conv"


@dataclass(frozen=True, eq=False)
class Shortcut:
    """A second modulated conv, 1x1 and without bias, whose result is added to the first.

    Attributes:
        x: plain map T [N, H >> shift, CBs, W >> shift, 32], where shift is the modulation's.
        packed: a 1x1 conv without bias, packed for the same ISA.
    """

    x: Array
    modulation: Modulation
    packed: PackedConv


def modulated_conv(
    isa: Isa,
    x: Array,
    modulation: Modulation,
    packed: PackedConv,
    y: Array,
    residual: Array | None = None,
    *,
    residual_shift: int = 0,
    shortcut: Shortcut | None = None,
) -> Step:
    """Return the step y = conv(modulate(x)) + residual or shortcut; the modulated map is never stored as a whole.

    Args:
        x: plain map T [N, H >> shift, CBi, W >> shift, 32], where shift is the modulation's.
        packed, y, residual, residual_shift: as in `kernels.ops.conv.conv`.
        shortcut: added in place of a residual.
    """
    expect_rank(OP, "y", y, 5)
    arguments = _pair(OP, isa, x, modulation, conv_arguments(OP, isa, packed, y, residual, residual_shift))
    if shortcut is not None:
        if residual is not None:
            raise StepError(f"[{OP}] expected a residual or a shortcut but got both")
        arguments |= _shortcut(isa, shortcut, packed, y)
    return arguments.step(OP, isa)


def _pair(op: str, isa: Isa, x: Array, modulation: Modulation, conv: Arguments) -> Arguments:
    """The arguments of a modulation under their own names, and of the conv that reads it with the prefix `conv_`."""
    n, height, width, in_channels = (int(conv.numbers[name]) for name in ("n", "height", "width", "in_channels"))
    size = (n, height, blocks(in_channels), width)
    return modulate_arguments(op, isa, x, modulation, size) | conv.prefixed("conv_")


def _shortcut(isa: Isa, shortcut: Shortcut, main: PackedConv, y: Array) -> Arguments:
    op, packed = f"{OP} shortcut", shortcut.packed
    if packed.kernel_size != 1 or packed.out_channels != main.out_channels or packed.bias.any():
        raise StepError(
            f"[{op}] expected a 1x1 conv without bias to {main.out_channels} channels but got "
            f"{packed.kernel_size}x{packed.kernel_size} {'with' if packed.bias.any() else 'without'} bias to "
            f"{packed.out_channels}"
        )
    pair = _pair(op, isa, shortcut.x, shortcut.modulation, conv_arguments(op, isa, packed, y))
    return pair.prefixed("shortcut_") | Arguments({}, {"has_shortcut": 1})
