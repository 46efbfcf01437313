"""A case of the GPU benchmark: one kernel on one input; and random inputs."""

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
        call: launches the kernel and returns its outputs.
        expected: the outputs of the specification in float64 (integers for the plan).
        eager: the same computation as a user of PyTorch writes it, or None where PyTorch has no operators for it.
        limit: largest allowed error, relative to the largest expected value.
        bytes: least bytes that the kernel must read and write.
        operations: additions and multiplications.
        triton: the same computation in OpenAI's Triton, or None.
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


# Limits of errors: a few roundings to the dtype, and sums in float32, of values near 1.
LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def random_values(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """Standard normal values; the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random).to(device, dtype)


def random_map(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """A channels-last map of standard normal values."""
    return random_values(shape, dtype, device, seed).contiguous(memory_format=torch.channels_last)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype in reports: `float16`."""
    return str(dtype).removeprefix("torch.")


def shape_name(n: int, channels: int, height: int, width: int, shift: int) -> str:
    """The name of an output's shape in reports."""
    return f"{n}x{channels}x{height}x{width}" + (", upsampled" if shift else "")
