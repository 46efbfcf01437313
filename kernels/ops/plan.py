"""Plan: which pixels of each resolution level see the same labels.

SPADE's gamma and beta at a pixel depend only on the symbols around it: two k x k convs read a patch of (2k-1) x (2k-1)
symbols. The names `patches3` and `patches5` are right for the usual k = 3; for another k they hold the k x k and the
(2k-1) x (2k-1) patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.layouts import Array, Int32, Int64, Symbols
from kernels.native import native
from kernels.program import Pool

Sizes = Sequence[tuple[int, int]]

KERNEL_SIZES = (1, 3, 5)
INT32_MAX = 2**31 - 1


class PlanError(ValueError):
    """Symbol maps or sizes that cannot be planned; the message names the value, the limit and the fix."""


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution level of a batch of N maps. All arrays are C-contiguous.

    `patches3[patches5[index]]` is the neighbourhood of every pixel. Maps share no rows: the rows of map n lie between
    offsets n and n + 1, numbered in order of first appearance in a row-major scan.

    Attributes:
        patches3: int32 [U3, k*k], k x k patches of symbols, taps row-major; n_symbols is "outside the image".
        patches5: int32 [U5, k*k], k x k patches of rows of patches3; U3 is "outside the image", where the second conv
            reads zeros.
        index: int32 [N, h, w], rows of patches5.
        patches3_offsets: int64 [N + 1], the rows of patches3 that belong to each map.
        patches5_offsets: int64 [N + 1], the rows of patches5 that belong to each map.
    """

    patches3: Int32
    patches5: Int32
    index: Int32
    patches3_offsets: Int64
    patches5_offsets: Int64


# ---- The specification in NumPy ----


def plan_numpy(symbols: Symbols, sizes: Sizes, n_symbols: int, kernel_size: int) -> list[Level]:
    """Compute what `plan` computes, bit for bit, by sorting. Same arguments, result and errors as `plan`."""
    symbols, sizes = _check(symbols, sizes, n_symbols, kernel_size)
    return [_level_numpy([_resize(one, h, w) for one in symbols], n_symbols, kernel_size) for h, w in sizes]


def _resize(symbols: npt.NDArray[np.uint16], height: int, width: int) -> Int64:
    rows = np.arange(height) * symbols.shape[0] // height
    columns = np.arange(width) * symbols.shape[1] // width
    resized: Int64 = symbols[rows[:, None], columns].astype(np.int64)
    return resized


def _level_numpy(maps: Sequence[Int64], n_symbols: int, kernel_size: int) -> Level:
    all3: list[Int64] = []
    all5: list[Int64] = []
    indices: list[Int64] = []
    for one in maps:
        patches3, numbers = distinct_windows(one, n_symbols, kernel_size)
        patches5, index = distinct_windows(numbers, len(patches3), kernel_size)
        all3.append(patches3)
        all5.append(patches5)
        indices.append(index)
    return join_maps(all3, all5, indices)


def join_maps(all3: Sequence[Array], all5: Sequence[Array], indices: Sequence[Array]) -> Level:
    """The Level of maps or volumes whose windows were numbered alone: patches3, patches5 and index of each."""
    offsets3, offsets5 = _offsets([len(p) for p in all3]), _offsets([len(p) for p in all5])
    outside = offsets3[-1]
    moved5 = [np.where(p5 == len(p3), outside, p5 + at) for p3, p5, at in zip(all3, all5, offsets3[:-1], strict=True)]
    moved_index = [index + at for index, at in zip(indices, offsets5[:-1], strict=True)]
    return Level(
        np.concatenate(all3).astype(np.int32),
        np.concatenate(moved5).astype(np.int32),
        np.stack(moved_index).astype(np.int32),
        offsets3,
        offsets5,
    )


def distinct_windows(ids: Array, outside: int, kernel_size: int) -> tuple[Array, Array]:
    """The distinct windows of ids, of any number of dimensions, and the window of each place.

    Returns [U, kernel_size ** dimensions] in order of first appearance, and numbers in the shape of ids.
    """
    padded = np.pad(ids, kernel_size // 2, constant_values=outside)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size,) * ids.ndim)
    windows = windows.reshape(ids.size, kernel_size**ids.ndim)
    _, first, inverse = np.unique(windows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return windows[first[order]], number[inverse].reshape(ids.shape)


# ---- The native kernel ----


def plan(symbols: Symbols, sizes: Sizes, n_symbols: int, kernel_size: int) -> list[Level]:
    """Plan the levels of a batch with the native kernel.

    Args:
        symbols: uint16 [N, H, W], values 0 .. n_symbols - 1.
        sizes: (h, w) of each level; the map is resized by NEAREST, source row floor(i * H / h).
        n_symbols: 1 .. 65535; the value n_symbols means "outside the image".
        kernel_size: k of SPADE's convs, 1, 3 or 5.

    Returns one Level per size. Each map is planned alone and then the plans are concatenated. Raises PlanError.
    """
    return concatenate(plan_maps(symbols, sizes, n_symbols, kernel_size))


def plan_maps(
    symbols: Symbols, sizes: Sizes, n_symbols: int, kernel_size: int, pool: Pool | None = None
) -> list[list[Level]]:
    """Plan each map alone, on the threads of a pool or on this thread. Arguments and errors as in `plan`.

    Returns the levels of each map.
    """
    symbols, sizes = _check(symbols, sizes, n_symbols, kernel_size)
    maps = native.plan_maps(symbols, sizes, n_symbols, kernel_size, None if pool is None else pool.native)
    return [
        [
            Level(patches3, patches5, index[None], _offsets([len(patches3)]), _offsets([len(patches5)]))
            for patches3, patches5, index in levels
        ]
        for levels in maps
    ]


# ---- Plans of several maps ----


def concatenate(plans: Sequence[Sequence[Level]]) -> list[Level]:
    """Join plans of the same sizes into the plan of one batch; a single plan is not copied. Raises PlanError."""
    if not plans or len({len(levels) for levels in plans}) != 1:
        raise PlanError(
            "[plan] expected at least one plan, all with the same number of levels, "
            f"but got numbers of levels {[len(levels) for levels in plans]}; plan every map with the same sizes"
        )
    if len(plans) == 1:
        return list(plans[0])
    return [_concatenate_level(parts) for parts in zip(*plans, strict=True)]


def _concatenate_level(parts: Sequence[Level]) -> Level:
    shapes = {(part.index.shape[1:], part.patches3.shape[1]) for part in parts}
    if len(shapes) != 1:
        raise PlanError(
            f"[plan] expected levels of one size and kernel size but got (h, w), k*k = {sorted(shapes)}; "
            "plan every map with the same sizes and kernel size"
        )
    patches3, patches5 = concatenate_patches(parts)
    rows3, rows5 = _starts([len(part.patches3) for part in parts]), _starts([len(part.patches5) for part in parts])
    maps = _starts([len(part.index) for part in parts])
    index = np.empty((maps[-1], *parts[0].index.shape[1:]), np.int32)
    for i, part in enumerate(parts):
        native.rebase(part.index, -1, rows5[i], -1, index[maps[i] : maps[i + 1]])
    return Level(
        patches3,
        patches5,
        index,
        _join_offsets([part.patches3_offsets for part in parts], rows3),
        _join_offsets([part.patches5_offsets for part in parts], rows5),
    )


def concatenate_patches(parts: Sequence[Level]) -> tuple[Int32, Int32]:
    """Join patches3 and patches5 of one level of several plans; a single plan's tables are not copied.

    The rows that a plan's index names start where the plan's patches5 start. Raises PlanError.
    """
    if len(parts) == 1:
        return parts[0].patches3, parts[0].patches5
    rows3, rows5 = _starts([len(part.patches3) for part in parts]), _starts([len(part.patches5) for part in parts])
    total3, total5, taps = rows3[-1], rows5[-1], parts[0].patches3.shape[1]
    if max(total3, total5) > INT32_MAX:
        raise PlanError(
            f"[plan] expected at most {INT32_MAX} patches in a batch but got {max(total3, total5)}; use a smaller batch"
        )
    patches5 = np.empty((total5, taps), np.int32)
    for i, part in enumerate(parts):
        native.rebase(part.patches5, len(part.patches3), rows3[i], total3, patches5[rows5[i] : rows5[i + 1]])
    return np.concatenate([part.patches3 for part in parts]), patches5


def _starts(counts: Sequence[int]) -> list[int]:
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts


def _offsets(counts: Sequence[int]) -> Int64:
    return np.asarray(_starts(counts), np.int64)


def _join_offsets(offsets: Sequence[Int64], starts: Sequence[int]) -> Int64:
    moved = [own[1:] + start for own, start in zip(offsets, starts[:-1], strict=True)]
    return np.concatenate([np.zeros(1, np.int64), *moved])


# ---- Checks of the arguments ----


def _check(symbols: Symbols, sizes: Sizes, n_symbols: int, kernel_size: int) -> tuple[Symbols, list[tuple[int, int]]]:
    check_numbers(n_symbols, kernel_size)
    return _check_symbols(symbols, n_symbols), [_check_size(height, width) for height, width in sizes]


def check_numbers(n_symbols: int, kernel_size: int) -> None:
    """Raises PlanError for a number of symbols or a kernel size that no plan has."""
    if kernel_size not in KERNEL_SIZES:
        raise PlanError(
            f"[plan] expected kernel_size 1, 3 or 5 but got {kernel_size!r}; use the size of SPADE's own convs"
        )
    if not 1 <= n_symbols <= native.MAX_SYMBOLS:
        raise PlanError(
            f"[plan] expected n_symbols in 1..{native.MAX_SYMBOLS} but got {n_symbols!r}; "
            "uint16 holds the symbols and one value for outside the image"
        )


def _check_symbols(symbols: Symbols, n_symbols: int) -> Symbols:
    if symbols.dtype != np.uint16 or symbols.ndim != 3:
        raise PlanError(
            f"[plan] expected symbols uint16 [N, H, W] but got {symbols.dtype} {list(symbols.shape)}; "
            "convert the dtype or add the batch axis"
        )
    if symbols.size == 0:
        raise PlanError(
            f"[plan] expected symbols [N, H, W] with every size at least 1 but got {list(symbols.shape)}; "
            "pass at least one map of one pixel"
        )
    symbols = np.ascontiguousarray(symbols)
    position = native.first_bad_symbol(symbols, n_symbols)
    if position >= 0:
        n, y, x = (int(i) for i in np.unravel_index(position, symbols.shape))
        raise PlanError(
            f"[plan] expected symbols below n_symbols {n_symbols} but got {symbols[n, y, x]} "
            f"at map {n}, row {y}, column {x}; correct the map or n_symbols"
        )
    return symbols


def _check_size(height: int, width: int) -> tuple[int, int]:
    if height < 1 or width < 1 or (height + 4) * (width + 4) > native.MAX_PIXELS:
        raise PlanError(
            f"[plan] expected a level of at least 1x1 and at most {native.MAX_PIXELS} pixels (with a border of 2) "
            f"but got {height}x{width}; use the level sizes of the configuration"
        )
    return height, width
