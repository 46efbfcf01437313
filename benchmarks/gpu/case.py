"""A case of the GPU benchmark: one kernel on one input; random inputs; and the errors of outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]


def largest_error(outputs: Outputs, expected: Outputs) -> float:
    """The largest difference, relative to the largest value of each output; infinite if a difference is not finite."""
    return _worst(outputs, expected, lambda error, exact: error.abs().max() / exact.abs().max().clamp(min=1))


def two_norm_error(outputs: Outputs, expected: Outputs) -> float:
    """The 2-norm of the differences relative to the 2-norm of each output; infinite if a difference is not finite."""
    return _worst(outputs, expected, lambda error, exact: error.norm() / exact.norm().clamp(min=1e-30))


def _worst(outputs: Outputs, expected: Outputs, error_of: Callable[[Tensor, Tensor], Tensor]) -> float:
    worst = 0.0
    for got, wanted in zip(outputs, expected, strict=True):
        exact = wanted.double()
        error = error_of(got.double() - exact, exact)
        worst = max(worst, float(error) if torch.isfinite(error) else float("inf"))
    return worst


@dataclass(frozen=True)
class Case:
    """One kernel on one input.

    Attributes:
        call: launches the kernel and returns its outputs.
        expected: the outputs of the specification in float64 (integers for the plan).
        eager: the same computation as a user of PyTorch writes it, or None where PyTorch has no operators for it.
        limit: largest allowed error.
        bytes: least bytes that the kernel must read and write.
        operations: additions and multiplications.
        triton: the same computation in OpenAI's Triton, or None.
        judge: the error of outputs against the expected ones.
    """

    call: Callable[[], Outputs]
    expected: Callable[[], Outputs]
    eager: Callable[[], object] | None
    limit: float
    bytes: int
    operations: int
    triton: Callable[[], Outputs] | None = None
    judge: Callable[[Outputs, Outputs], float] = largest_error

    def error(self) -> float:
        """The error of the kernel's outputs."""
        return self.judge(self.call(), self.expected())


@dataclass(frozen=True)
class Planned:
    """A case that is not made yet. `make` draws its inputs, on the device, so that a case left out costs nothing."""

    name: str
    shape: str
    dtype: str
    make: Callable[[], Case]


# Limits of errors: a few roundings to the dtype, and sums in float32, of values near 1.
LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

# Limits of the relative 2-norm of gradients: two roundings to the dtype, and sums in float32 over a patch's pixels.
GRADIENT_LIMITS = {dtype: 2 * torch.finfo(dtype).eps + 1e-4 for dtype in LIMITS}

# Gradients jump where the leaky ReLU's input is 0. A rounding moves an input of float32 by less than this.
KINK = 1e-3


def away_from_the_kink(dy: Tensor, values: Tensor) -> Tensor:
    """The gradient dy, with zeros where the inputs of the leaky ReLU (`values`, exact) are near 0.

    There a rounding may flip the slope, and correct kernels would differ by most of dy.
    """
    return torch.where(values.abs() < KINK, torch.zeros_like(dy), dy)


def random_values(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """Standard normal values, drawn on the device; the same for the same seed and device."""
    random = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=random, device=device).to(dtype)


def random_map(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """A channels-last map of standard normal values."""
    return random_values(shape, dtype, device, seed).contiguous(memory_format=torch.channels_last)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype in reports: `float16`."""
    return str(dtype).removeprefix("torch.")


def shape_name(n: int, channels: int, height: int, width: int, shift: int) -> str:
    """The name of an output's shape in reports."""
    return f"{n}x{channels}x{height}x{width}" + (", upsampled" if shift else "")
