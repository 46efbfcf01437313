"""Plan of volumes: which voxels see the same labels. The plan of `kernels.ops.plan` with k x k x k windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.layouts import Array, Int32, Int64
from kernels.native import native
from kernels.ops.plan import KERNEL_SIZES, Level, PlanError

Windows = Callable[[Int32, int, int], tuple[Int32, Int32]]


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
    return _plan(symbols, n_symbols, kernel_size, _volume_windows)


def _volume_windows(ids: Int32, outside: int, kernel_size: int) -> tuple[Int32, Int32]:
    """ids [D, H, W] -> distinct windows [U, k*k*k] in order of first appearance, and each voxel's window [D * H, W]."""
    padded = np.pad(ids, kernel_size // 2, constant_values=outside)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size,) * 3).reshape(ids.size, kernel_size**3)
    _, first, inverse = np.unique(windows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return windows[first[order]], number[inverse].reshape(-1, ids.shape[2]).astype(np.int32)


def _plan(symbols: Array, n_symbols: int, kernel_size: int, windows: Windows) -> Level:
    _check(symbols, n_symbols, kernel_size)
    three, five, index = [], [], []
    for volume in symbols.astype(np.int32):
        patches3, numbers = windows(volume, n_symbols, kernel_size)
        patches5, found = windows(numbers.reshape(volume.shape), len(patches3), kernel_size)
        three.append(patches3)
        five.append(patches5)
        index.append(found.reshape(volume.shape))
    offsets3, offsets5 = _offsets(three), _offsets(five)
    moved = [
        np.where(rows == len(own), offsets3[-1], rows + start)
        for rows, own, start in zip(five, three, offsets3[:-1], strict=True)
    ]
    return Level(
        np.concatenate(three),
        np.concatenate(moved).astype(np.int32),
        np.stack([found + start for found, start in zip(index, offsets5[:-1], strict=True)]).astype(np.int32),
        offsets3,
        offsets5,
    )


def _offsets(tables: list[Int32]) -> Int64:
    return np.cumsum([0, *(len(table) for table in tables)], dtype=np.int64)


def _check(symbols: Array, n_symbols: int, kernel_size: int) -> None:
    if kernel_size not in KERNEL_SIZES:
        raise PlanError(
            f"[plan] expected kernel_size 1, 3 or 5 but got {kernel_size!r}; use the size of SPADE's own convs"
        )
    if not 1 <= n_symbols <= native.MAX_SYMBOLS:
        raise PlanError(f"[plan] expected n_symbols in 1..{native.MAX_SYMBOLS} but got {n_symbols!r}")
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
