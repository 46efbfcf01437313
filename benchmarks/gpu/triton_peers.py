"""The GPU benchmark's peers in OpenAI's Triton, a language. Elsewhere in this project, Triton is NVIDIA's server.

The peers compute the same as `kernels.cuda` on whole channels-last maps, for comparison only: no engine runs them.
Without Triton there are no peers, and `absent` says why.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.gpu.case import Outputs
from kernels.constants import EPSILON, HIDDEN
from kernels.cuda.host.tensors import empty_map

LARGEST = 1 << 31  # elements: offsets are 32-bit
FUSED = {"enable_fp_fusion": True}  # fused multiply-add, which is not the default from Triton 3.10 on
PROGRAMS = 512  # programs of the pass for the statistics: four for each of 128 multiprocessors


def absent() -> str | None:
    """Why Triton cannot be imported, or None where it can."""
    try:
        _kernels()
    except ImportError as error:
        return str(error)
    return None


def version() -> str:
    """Triton's version, or why Triton is absent."""
    why = absent()
    return f"absent: {why}; pip install -e '.[bench]' in the checkout" if why else str(_kernels().triton.__version__)


def peer(call: Callable[[], Outputs] | None) -> Callable[[], Outputs] | None:
    """`call`, or None where Triton cannot be imported."""
    return call if absent() is None else None


@functools.cache
def _kernels() -> ModuleType:
    from benchmarks.gpu import triton_kernels

    return triton_kernels


def modulate_dense(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """lrelu((x - mean) * rstd * (1 + gamma) + beta).

    Maps [N, C, H, W] float32, float16 or bfloat16, channels last; statistics float32 [N, C] or [1, C]. Raises
    ValueError.
    """
    for name, tensor in (("x", x), ("gamma", gamma), ("beta", beta)):
        _expect_map(name, tensor)
    (n, channels), pixels = x.shape[:2], x.shape[2] * x.shape[3]
    out, width = torch.empty_like(x), _width(channels, 64)
    _kernels().modulate_dense[lambda meta: (_programs(pixels, channels, width, meta["TILE"]), n)](
        x, gamma, beta, mean, rstd, out, pixels, channels if len(mean) == n else 0, CHANNELS=channels, WIDTH=width,
        **FUSED,
    )  # fmt: skip
    return out


def modulate_dense_instance(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float = EPSILON) -> Tensor:
    """`modulate_dense` with the statistics of each image and channel: one launch for them, one for the modulation."""
    return modulate_dense(x, gamma, beta, *instance_statistics(x, epsilon))


def instance_statistics(x: Tensor, epsilon: float = EPSILON) -> tuple[Tensor, Tensor]:
    """mean and 1 / sqrt(variance + epsilon), float32 [N, C], of a map x as in `modulate_dense`. Raises ValueError."""
    _expect_map("x", x)
    (n, channels), pixels = x.shape[:2], x.shape[2] * x.shape[3]
    width = _width(channels, 64)
    across = -(-channels // width)
    splits = 1 << (max(1, min(64, PROGRAMS // (n * across), pixels // 64)).bit_length() - 1)
    parts = x.new_empty((n, splits, 2, channels), dtype=torch.float32)
    mean, rstd = x.new_empty((2, n, channels), dtype=torch.float32)
    _kernels().instance_statistics[(splits * across, n)](
        x, parts, _zeros(x.device, n * across), mean, rstd, epsilon, PIXELS=pixels, CHANNELS=channels, WIDTH=width,
        SPLITS=splits, **FUSED,
    )  # fmt: skip
    return mean, rstd


@functools.cache
def _zeros(device: torch.device, count: int) -> Tensor:
    # Made once: every launch leaves the counters zero. A launch to clear them would count as the peer's time.
    return torch.zeros(count, dtype=torch.int32, device=device)


def modulate_codebook(x: Tensor, entries: Tensor, index: Tensor, *, shift: int = 0) -> Tensor:
    """lrelu(a[index] * x + b[index]), x read at (row >> shift, column >> shift).

    x [N, C, H >> shift, W >> shift] channels last and entries [U, 2C], float32, float16 or bfloat16; index int32
    [N, H, W]. Raises ValueError.
    """
    _expect_map("x", x)
    (n, channels, rows, columns), wide = x.shape, _width(x.shape[1], 256)
    if shift not in (0, 1) or (n, rows << shift, columns << shift) != index.shape:
        raise ValueError(f"[triton] expected shift 0 or 1 and an index of x's size times 1 << shift, but got {shift} "
                         f"for x {list(x.shape)} and index {list(index.shape)}; pass the other shift")  # fmt: skip
    out = empty_map((n, channels, *index.shape[1:]), x, "nhwc")
    _expect_few("entries", entries, out)
    pixels = n * rows * columns
    _kernels().modulate_codebook[lambda meta: (_programs(pixels, channels, wide, meta["TILE"]),)](
        x, entries, index, out, pixels, COLUMNS=columns, SHIFT=shift, CHANNELS=channels, WIDTH=wide, **FUSED
    )
    return out


def codebook_product(actv: Tensor, patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """bias + gathered rows of actv x weight, [U5, 2C]; arguments as `kernels.cuda.codebook.codebook.Codebook`.

    The one difference: weight is [taps * 128, 2C]. actv and weight are float16 or bfloat16. Raises ValueError.
    """
    rows, taps, columns = *patches.shape, len(bias)
    if actv.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"[triton] expected actv of float16 or bfloat16 but got {actv.dtype}; convert it")
    entries = actv.new_empty((rows, columns))
    _expect_few("patches", actv, patches, entries)
    _kernels().codebook_product[lambda meta: (-(-rows // meta["ROWS"]) * -(-columns // meta["WIDTH"]),)](
        actv, patches, weight, bias, entries, rows, COLUMNS=columns, TAPS=taps, HIDDEN=HIDDEN, **FUSED
    )
    return entries


def _width(channels: int, most: int) -> int:
    return min(1 << (channels - 1).bit_length(), most)


def _programs(pixels: int, channels: int, width: int, tile: int) -> int:
    return -(-pixels // (tile // width)) * -(-channels // width)


def _expect_map(name: str, x: Tensor) -> None:
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"[triton] expected {name} channels last but got {list(x.shape)} of strides "
                         f"{list(x.stride())}; convert it with .contiguous(memory_format=...)")  # fmt: skip
    _expect_few(name, x)


def _expect_few(name: str, *tensors: Tensor) -> None:
    most = max(tensor.numel() for tensor in tensors)
    if most > LARGEST:
        raise ValueError(f"[triton] expected at most {LARGEST} elements, of {name} and what it makes, but got {most}; "
                         "take fewer images")  # fmt: skip
