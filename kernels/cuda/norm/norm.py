"""Statistics of a map on CUDA, and the gradient through them; the functions in `_torch` are the specification."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.cuda.host.library import LAYOUTS, NORMS, Library, Norm
from kernels.cuda.host.tensors import (
    address,
    dtype_number,
    in_layout,
    layout_of,
    library_of,
    place_of,
    scratch_for,
)


@dataclass(frozen=True)
class Statistics:
    """What normalises a map x: (x - mean) * rstd.

    Attributes:
        mean, rstd: float32 [N, C] or [1, C]; rstd is 1 / sqrt(variance + epsilon).
        norm: "instance" or "batch" if the statistics were computed from x, so that a gradient passes through them;
            "given" if they do not depend on x.
    """

    mean: Tensor
    rstd: Tensor
    norm: Norm = "given"


def empty_statistics(x: Tensor, norm: Norm) -> Statistics:
    """Uninitialised statistics of x [N, C, H, W]: [N, C] of "instance", [1, C] of "batch"."""
    n, channels = x.shape[:2]
    mean, rstd = x.new_empty((2, n if norm == "instance" else 1, channels), dtype=torch.float32)
    return Statistics(mean, rstd, norm)


def norm_statistics(x: Tensor, norm: Norm, *, epsilon: float = EPSILON, library: Library | None = None) -> Statistics:
    """The statistics of x [N, C, H, W]: of each image ("instance") or of all images ("batch"). Raises CudaError."""
    library = library_of(x, library)
    layout = layout_of(x)
    x = in_layout(x, layout)
    n, channels, height, width = x.shape
    statistics = empty_statistics(x, norm)
    scratch = scratch_for(library, x, norm)
    library.call(
        "norm_statistics", place_of("norm_statistics", x),
        x=address(x), mean=address(statistics.mean), rstd=address(statistics.rstd),
        scratch=address(scratch), scratch_bytes=scratch.numel(), n=n, pixels=height * width, channels=channels,
        norm=NORMS[norm], epsilon=epsilon, dtype=dtype_number(x), layout=LAYOUTS[layout],
    )  # fmt: skip
    return statistics


def norm_backward(x: Tensor, g: Tensor, statistics: Statistics, *, library: Library | None = None) -> Tensor:
    """The gradient at x from the gradient g at the normalised x, written over g. Raises CudaError.

    `statistics` must be of norm "instance" or "batch".
    """
    library = library_of(x, library)
    layout = layout_of(g)
    x = in_layout(x, layout)
    n, channels, height, width = x.shape
    scratch = scratch_for(library, x, statistics.norm)
    library.call(
        "norm_backward", place_of("norm_backward", x, g, statistics.mean, statistics.rstd),
        x=address(x), g=address(g), mean=address(statistics.mean),
        rstd=address(statistics.rstd), dx=address(g), scratch=address(scratch), scratch_bytes=scratch.numel(), n=n,
        pixels=height * width, channels=channels, norm=NORMS[statistics.norm], dtype=dtype_number(x),
        layout=LAYOUTS[layout],
    )  # fmt: skip
    return g


# ---- The specification ----


def statistics_torch(x: Tensor, norm: Norm, epsilon: float = EPSILON) -> Statistics:
    """What `norm_statistics` computes, in the dtype of x."""
    axes = _axes(norm)
    mean = x.mean(axes).view(-1, x.shape[1])
    variance = x.var(axes, correction=0).view(-1, x.shape[1])
    return Statistics(mean, torch.rsqrt(variance + epsilon), norm)


def normalise_torch(x: Tensor, statistics: Statistics | None) -> Tensor:
    """(x - mean) * rstd of x [N, C, H, W]; x itself without statistics."""
    if statistics is None:
        return x
    return (x - statistics.mean[:, :, None, None]) * statistics.rstd[:, :, None, None]


def norm_backward_torch(xn: Tensor, g: Tensor, statistics: Statistics | None) -> Tensor:
    """The gradient at x from the gradient g at the normalised x, xn: the equation in kernels/cuda/norm/norm.hpp."""
    if statistics is None:
        return g
    scale = statistics.rstd[:, :, None, None]
    if statistics.norm == "given":
        return g * scale
    axes = _axes(statistics.norm)
    return (g - g.mean(axes, keepdim=True) - xn * (g * xn).mean(axes, keepdim=True)) * scale


def _axes(norm: Norm) -> tuple[int, ...]:
    return (2, 3) if norm == "instance" else (0, 2, 3)
