"""Plan of volumes: which voxels see the same labels. The plan of `kernels.ops.plan` with k x k x k windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.layouts import Array
from kernels.native import native
from kernels.ops.plan import Level, PlanError, check_numbers, distinct_windows, join_maps

Windows = Callable[[Array, int, int], tuple[Array, Array]]


def plan_volumes(symbols: Array, n_symbols: int, kernel_size: int) -> Level:
    """The plan of volumes of symbols at their own size, with the native kernel.

    Args:
        symbols: uint16 [N, D, H, W], values 0 .. n_symbols - 1; n_symbols means "outside the volume".
        kernel_size: k of SPADE's convs, 1, 3 or 5.

    Returns a Level whose patches have k*k*k taps, depth outermost, and whose index is int32 [N, D, H, W]. Each volume
    is planned alone. Raises PlanError.
    """
    return _plan(symbols, n_symbols, kernel_size, native.volume_windows)


def plan_volumes_numpy(symbols: Array, n_symbols: int, kernel_size: int) -> Level:
    """Compute what `plan_volumes` computes, bit for bit, by sorting. Same arguments, result and errors."""
    return _plan(symbols, n_symbols, kernel_size, distinct_windows)


def _plan(symbols: Array, n_symbols: int, kernel_size: int, windows: Windows) -> Level:
    _check(symbols, n_symbols, kernel_size)
    three, five, index = [], [], []
    for volume in symbols.astype(np.int32):
        patches3, numbers = windows(volume, n_symbols, kernel_size)
        patches5, found = windows(numbers.reshape(volume.shape).astype(np.int32), len(patches3), kernel_size)
        three.append(patches3)
        five.append(patches5)
        index.append(found.reshape(volume.shape))
    return join_maps(three, five, index)


def _check(symbols: Array, n_symbols: int, kernel_size: int) -> None:
    check_numbers(n_symbols, kernel_size)
    if symbols.dtype != np.uint16 or symbols.ndim != 4 or symbols.size == 0:
        raise PlanError(
            f"[plan] expected symbols uint16 [N, D, H, W], every size at least 1, but got {symbols.dtype} "
            f"{list(symbols.shape)}; convert the dtype or add the batch axis"
        )
    if (padded := np.prod([size + 4 for size in symbols.shape[1:]], dtype=float)) > native.MAX_PIXELS:
        raise PlanError(
            f"[plan] expected a volume of at most {native.MAX_PIXELS} voxels (with a border of 2) but got "
            f"{padded:.0f}; plan a smaller crop"
        )
    if (largest := int(symbols.max())) >= n_symbols:
        raise PlanError(
            f"[plan] expected symbols below n_symbols {n_symbols} but got {largest}; correct the volume or n_symbols"
        )
