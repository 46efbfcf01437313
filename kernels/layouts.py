"""The memory layouts of maps and entries that kernels/include/spade_kernels.h defines, in NumPy.

T is float32, float16, or bf16 stored as its uint16 bits. A block is 32 channels; CB = ceil(C / 32).
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

DType = Literal["float32", "float16", "bf16"]
Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Labels = npt.NDArray[np.uint8]  # [N, H, W]
Instances = npt.NDArray[np.int32]  # [N, H, W]
Edges = npt.NDArray[np.bool_]  # [N, H, W]
Symbols = npt.NDArray[np.uint16]  # [N, H, W]

BLOCK = 32
"""Channels of a block."""

HUGE_PAGE = 2 << 20
"""Bytes of a huge page."""


def storage_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the NumPy dtype that stores T. Raises ValueError."""
    if dtype not in get_args(DType):
        raise ValueError(f"[layouts] expected dtype {' or '.join(get_args(DType))} but got {dtype!r}")
    return np.dtype("uint16" if dtype == "bf16" else dtype)


def blocks(channels: int) -> int:
    """Return CB, the blocks of 32 that hold the channels."""
    return -(-channels // BLOCK)


def to_storage(values: npt.ArrayLike, dtype: DType) -> Array:
    """Real numbers -> T, rounded to nearest even; NaN stays NaN."""
    narrow = np.asarray(values, np.float32)
    if dtype != "bf16":
        return narrow.astype(storage_dtype(dtype), copy=False)
    bits = np.ascontiguousarray(narrow).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(narrow), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_storage(stored: Array) -> Float64:
    """T -> float64, exactly."""
    if stored.dtype == np.uint16:
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)


def to_plain(x: npt.ArrayLike, dtype: DType) -> Array:
    """[N, C, H, W] -> plain map T [N, H, CB, W, 32], unused channels zero."""
    values = np.asarray(x)
    n, channels, height, width = values.shape
    whole = np.zeros((n, blocks(channels) * BLOCK, height, width), values.dtype)
    whole[:, :channels] = values
    lanes = whole.reshape(n, -1, BLOCK, height, width).transpose(0, 3, 1, 4, 2)  # [N, H, CB, W, 32]
    return np.ascontiguousarray(to_storage(lanes, dtype))


def from_plain(x: Array, channels: int) -> Float64:
    """Plain map T [N, H, CB, W, 32] -> [N, C, H, W]."""
    n, height, _, width, _ = x.shape
    joined = from_storage(x).transpose(0, 2, 4, 1, 3).reshape(n, -1, height, width)
    return joined[:, :channels]


def to_padded(x: npt.ArrayLike, dtype: DType) -> Array:
    """[N, C, H, W] -> padded map T [N, H + 2, CB, W + 2, 32], border and unused channels zero."""
    return to_plain(np.pad(np.asarray(x), ((0, 0), (0, 0), (1, 1), (1, 1))), dtype)


def from_padded(x: Array, channels: int) -> Float64:
    """Padded map T [N, H + 2, CB, W + 2, 32] -> [N, C, H, W], the border left out."""
    return from_plain(x, channels)[:, :, 1:-1, 1:-1]


def to_entries(a: npt.ArrayLike, b: npt.ArrayLike, dtype: DType) -> Array:
    """a and b [U, C] -> entries T [CB, U, 2, 32], unused channels zero."""
    pair = np.stack([pad_channels(a), pad_channels(b)])  # [2, U, CB * 32]
    lanes = pair.reshape(2, pair.shape[1], -1, BLOCK).transpose(2, 1, 0, 3)
    return np.ascontiguousarray(to_storage(lanes, dtype))


def from_entries(entries: Array, channels: int) -> tuple[Float64, Float64]:
    """Entries T [CB, U, 2, 32] -> a and b [U, C]."""
    pair = from_storage(entries).transpose(2, 1, 0, 3).reshape(2, entries.shape[1], -1)[:, :, :channels]
    return pair[0], pair[1]


def pad_channels(values: npt.ArrayLike) -> Float32:
    """[..., C] -> float32 [..., CB * 32], zero in unused channels."""
    narrow = np.asarray(values, np.float32)
    behind = -narrow.shape[-1] % BLOCK
    return np.pad(narrow, [(0, 0)] * (narrow.ndim - 1) + [(0, behind)])


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike, alignment: int = 64) -> Array:
    """Return an uninitialised array whose address is a multiple of `alignment`; a large array gets its own huge pages.

    Kernels stream weights and maps. With small pages they would spend much of the time on address translation.
    """
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    if size >= HUGE_PAGE // 8 and hasattr(mmap, "MADV_HUGEPAGE"):
        alignment = HUGE_PAGE
        pages = -(-size // HUGE_PAGE) + 1
        memory = mmap.mmap(-1, pages * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # an operating system without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        raw = np.frombuffer(memory, np.uint8)
    else:
        raw = np.empty(size + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size].view(kind).reshape(shape)


def empty_plain(n: int, channels: int, height: int, width: int, dtype: DType) -> Array:
    """Return an uninitialised plain map T [N, H, CB, W, 32]."""
    return aligned_empty((n, height, blocks(channels), width, BLOCK), storage_dtype(dtype))


def empty_padded(n: int, channels: int, height: int, width: int, dtype: DType) -> Array:
    """Return an uninitialised padded map T [N, H + 2, CB, W + 2, 32]."""
    return aligned_empty((n, height + 2, blocks(channels), width + 2, BLOCK), storage_dtype(dtype))
