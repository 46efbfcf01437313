"""SPADE's modulation with gamma and beta of every pixel, on CUDA; the functions in `_torch` are the specification."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.constants import EPSILON, SLOPE
from kernels.cuda.host.library import LAYOUTS, NORMS, CudaError, Layout, Library, Norm
from kernels.cuda.host.tensors import (
    address,
    dtype_number,
    empty_map,
    expect_shape,
    in_layout,
    layout_of,
    library_of,
    place_of,
    scratch_for,
    statistics_stride,
)
from kernels.cuda.norm.norm import Statistics, empty_statistics, norm_backward_torch, normalise_torch


def modulate_dense(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    norm: Norm = "given",
    statistics: Statistics | None = None,
    epsilon: float = EPSILON,
    leaky: bool = True,
    library: Library | None = None,
) -> tuple[Tensor, Statistics | None]:
    """out = act((x - mean) * rstd * (1 + gamma) + beta).

    Args:
        x: [N, C, H, W], float32, float16 or bfloat16, contiguous or channels last.
        gamma, beta: as x; the two halves of one map [N, 2C, H, W] are read in place.
        norm: "instance" and "batch" compute the statistics of x; "given" takes `statistics`.
        statistics: only for norm "given"; None: x is not normalised.
        leaky: leaky ReLU of slope 0.2.

    Returns (out, the statistics that normalised x): out has the shape, dtype and layout of x. Raises CudaError.
    """
    library = library_of(x, library)
    layout = layout_of(x)
    x = in_layout(x, layout)
    n, channels, height, width = x.shape
    if norm not in NORMS:
        raise CudaError(f"[modulate_dense] expected norm {', '.join(NORMS)} but got {norm!r}")
    if norm != "given":
        if statistics is not None:
            raise CudaError(
                f"[modulate_dense] expected no statistics for norm {norm!r}, which computes them, but got some"
            )
        statistics = empty_statistics(x, norm)
    mean, rstd = (None, None) if statistics is None else (statistics.mean, statistics.rstd)
    gamma, beta, stride = _modulation(x, gamma, beta, layout)
    out = empty_map((n, channels, height, width), x, layout)
    scratch = scratch_for(library, x, norm)
    library.call(
        "modulate_dense", place_of("modulate_dense", x, gamma, beta, mean, rstd),
        x=address(x), gamma=address(gamma), beta=address(beta), mean=address(mean),
        rstd=address(rstd), out=address(out), scratch=address(scratch), scratch_bytes=scratch.numel(), n=n,
        pixels=height * width, channels=channels, modulation_stride=stride,
        statistics_stride=statistics_stride(mean, n, channels), norm=NORMS[norm], epsilon=epsilon, leaky=leaky,
        dtype=dtype_number(x), layout=LAYOUTS[layout],
    )  # fmt: skip
    return out, statistics


def modulate_dense_backward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    dy: Tensor,
    statistics: Statistics | None,
    *,
    leaky: bool = True,
    library: Library | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients at (x, gamma, beta) from the gradient dy of the output; they pass through computed statistics.

    The other arguments are the forward's; `statistics` is what the forward returned. Raises CudaError.
    """
    library = library_of(x, library)
    layout = layout_of(x)
    x, dy = in_layout(x, layout), in_layout(dy, layout)
    n, channels, height, width = x.shape
    expect_shape("modulate_dense", "dy", dy, tuple(x.shape), x.dtype)
    norm: Norm = "given" if statistics is None else statistics.norm
    mean, rstd = (None, None) if statistics is None else (statistics.mean, statistics.rstd)
    gamma, beta, stride = _modulation(x, gamma, beta, layout)
    dx, dgamma, dbeta = (empty_map((n, channels, height, width), x, layout) for _ in range(3))
    scratch = scratch_for(library, x, norm)
    library.call(
        "modulate_dense_backward", place_of("modulate_dense_backward", x, gamma, beta, dy, mean, rstd),
        x=address(x), gamma=address(gamma), beta=address(beta), dy=address(dy),
        mean=address(mean), rstd=address(rstd), dx=address(dx), dgamma=address(dgamma), dbeta=address(dbeta),
        scratch=address(scratch), scratch_bytes=scratch.numel(), n=n, pixels=height * width, channels=channels,
        modulation_stride=stride, gradient_stride=_row(x, layout),
        statistics_stride=statistics_stride(mean, n, channels), norm=NORMS[norm], leaky=leaky, dtype=dtype_number(x),
        layout=LAYOUTS[layout],
    )  # fmt: skip
    return dx, dgamma, dbeta


def _row(x: Tensor, layout: Layout) -> int:
    return x.shape[1] if layout == "nhwc" else x.shape[1] * x.shape[2] * x.shape[3]


def _stride(x: Tensor, layout: Layout) -> int | None:
    """Elements between two pixels (nhwc) or two images (nchw) of x, or None if no kernel can read its strides.

    x is a whole map, or some channels of a larger one.
    """
    n, channels, height, width = x.shape
    if layout == "nhwc":
        row = x.stride(3) if width > 1 else x.stride(2) if height > 1 else x.stride(0) if n > 1 else channels
        expected = (height * width * row, 1, width * row, row)
    else:
        row = x.stride(0) if n > 1 else channels * height * width
        expected = (row, height * width, width, 1)
    plain = all(size == 1 or a == b for size, a, b in zip(x.shape, x.stride(), expected, strict=True))
    return row if plain and row >= _row(x, layout) else None


def _modulation(x: Tensor, gamma: Tensor, beta: Tensor, layout: Layout) -> tuple[Tensor, Tensor, int]:
    """gamma and beta as the kernels can read them, and their stride; copies where the strides are others."""
    for name, tensor in (("gamma", gamma), ("beta", beta)):
        expect_shape("modulate_dense", name, tensor, tuple(x.shape), x.dtype)
    stride = _stride(gamma, layout)
    if stride is None or stride != _stride(beta, layout):
        gamma, beta, stride = in_layout(gamma, layout), in_layout(beta, layout), _row(x, layout)
    return gamma, beta, stride


# ---- The specification ----


def modulate_dense_torch(
    x: Tensor, gamma: Tensor, beta: Tensor, statistics: Statistics | None, leaky: bool = True
) -> Tensor:
    """What `modulate_dense` computes from its statistics, in the dtype of its arguments; differentiable."""
    value = normalise_torch(x, statistics) * (1 + gamma) + beta
    return F.leaky_relu(value, SLOPE) if leaky else value


def modulate_dense_backward_torch(
    x: Tensor, gamma: Tensor, beta: Tensor, dy: Tensor, statistics: Statistics | None, leaky: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """What `modulate_dense_backward` computes: the equations in kernels/cuda/modulate/modulate_dense.hpp."""
    xn = normalise_torch(x, statistics)
    d = torch.where(xn * (1 + gamma) + beta > 0, dy, dy * (SLOPE if leaky else 1.0))
    return norm_backward_torch(xn, d * (1 + gamma), statistics), d * xn, d
