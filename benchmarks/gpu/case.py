"""One kernel on one input, as the GPU benchmark checks and times it, and what inputs are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One kernel on one input.

    Attributes:
        call: launches the kernel.
        expected: its specification, in float64 (integers for the plan).
        eager: what a user of PyTorch would run, or None where there is nothing like it.
        limit: largest error allowed, over the expected output's largest value.
        bytes: what must be read and written once; operations: additions and multiplications.
        triton: the same in OpenAI's Triton, or None.
    """

    name: str
    shape: str
    dtype: str
    call: Callable[[], Outputs]
    expected: Callable[[], Outputs]
    eager: Callable[[], object] | None
    limit: float
    bytes: int
    operations: int
    triton: Callable[[], Outputs] | None = None


# Of values near 1, after a few roundings of the dtype and sums in float32.
LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def random_values(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random).to(device, dtype)


def random_map(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    return random_values(shape, dtype, device, seed).contiguous(memory_format=torch.channels_last)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def shape_name(n: int, channels: int, height: int, width: int, shift: int) -> str:
    return f"{n}x{channels}x{height}x{width}" + (", upsampled" if shift else "")
