"""SPADE's modulation with gamma and beta of every pixel, on CUDA; the functions in `_torch` are its specification."""

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
    scratch_for,
    statistics_stride,
    stream_of,
)

Statistics = tuple[Tensor | None, Tensor | None]


def modulate_dense(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    norm: Norm = "given",
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    epsilon: float = EPSILON,
    leaky: bool = True,
    library: Library | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """out = act((x - mean) * rstd * (1 + gamma) + beta).

    Args:
        x: [N, C, H, W], float32, float16 or bfloat16, contiguous or channels last.
        gamma, beta: as x; the two halves of one map [N, 2C, H, W] are read where they lie.
        norm: "given" takes mean and rstd as they are; "instance" and "batch" compute them.
        mean, rstd: float32 [N, C] or [1, C], or None for no normalisation; only with norm="given".
        leaky: leaky ReLU of slope 0.2.

    Returns (out, mean, rstd): out as x; float32 statistics, [N, C] of "instance" and [1, C] of "batch". Raises
    CudaError.
    """
    library = library_of(x, library)
    layout = layout_of(x)
    x = in_layout(x, layout)
    n, channels, height, width = x.shape
    if norm not in NORMS:
        raise CudaError(f"[modulate_dense] expected norm {', '.join(NORMS)} but got {norm!r}")
    if norm != "given":
        if mean is not None or rstd is not None:
            raise CudaError(
                f"[modulate_dense] expected no statistics for norm {norm!r}, which computes them, but got some"
            )
        mean, rstd = x.new_empty((2, n if norm == "instance" else 1, channels), dtype=torch.float32)
    gamma, beta, stride = _modulation(x, gamma, beta, layout)
    out = empty_map((n, channels, height, width), x, layout)
    scratch = scratch_for(library, x, norm)
    library.call(
        "modulate_dense", stream_of(x), x=address(x), gamma=address(gamma), beta=address(beta), mean=address(mean),
        rstd=address(rstd), out=address(out), scratch=address(scratch), scratch_bytes=scratch.numel(), n=n,
        pixels=height * width, channels=channels, modulation_stride=stride,
        statistics_stride=statistics_stride(mean, n, channels), norm=NORMS[norm], epsilon=epsilon, leaky=leaky,
        dtype=dtype_number(x), layout=LAYOUTS[layout],
    )  # fmt: skip
    return out, mean, rstd


def modulate_dense_backward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    dy: Tensor,
    mean: Tensor | None,
    rstd: Tensor | None,
    *,
    norm: Norm = "given",
    leaky: bool = True,
    library: Library | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients at (x, gamma, beta), through the statistics unless they were given. Arguments as the forward's."""
    library = library_of(x, library)
    layout = layout_of(x)
    x, dy = in_layout(x, layout), in_layout(dy, layout)
    n, channels, height, width = x.shape
    expect_shape("modulate_dense", "dy", dy, tuple(x.shape), x.dtype)
    gamma, beta, stride = _modulation(x, gamma, beta, layout)
    dx, dgamma, dbeta = (empty_map((n, channels, height, width), x, layout) for _ in range(3))
    scratch = scratch_for(library, x, norm)
    library.call(
        "modulate_dense_backward", stream_of(x), x=address(x), gamma=address(gamma), beta=address(beta), dy=address(dy),
        mean=address(mean), rstd=address(rstd), dx=address(dx), dgamma=address(dgamma), dbeta=address(dbeta),
        scratch=address(scratch), scratch_bytes=scratch.numel(), n=n, pixels=height * width, channels=channels,
        modulation_stride=stride, gradient_stride=_row(x, layout),
        statistics_stride=statistics_stride(mean, n, channels), norm=NORMS[norm], leaky=leaky, dtype=dtype_number(x),
        layout=LAYOUTS[layout],
    )  # fmt: skip
    return dx, dgamma, dbeta


def norm_backward(
    x: Tensor, g: Tensor, mean: Tensor, rstd: Tensor, *, norm: Norm, library: Library | None = None
) -> Tensor:
    """The gradient at x from the gradient g at the normalised x, which is overwritten by it: g is returned."""
    library = library_of(x, library)
    layout = layout_of(g)
    x = in_layout(x, layout)
    n, channels, height, width = x.shape
    scratch = scratch_for(library, x, norm)
    library.call(
        "norm_backward", stream_of(x), x=address(x), g=address(g), mean=address(mean), rstd=address(rstd),
        dx=address(g), scratch=address(scratch), scratch_bytes=scratch.numel(), n=n, pixels=height * width,
        channels=channels, norm=NORMS[norm], dtype=dtype_number(x), layout=LAYOUTS[layout],
    )  # fmt: skip
    return g


def norm_statistics(
    x: Tensor, norm: Norm, *, epsilon: float = EPSILON, library: Library | None = None
) -> tuple[Tensor, Tensor]:
    """mean and 1 / sqrt(variance + epsilon) of x [N, C, H, W]: float32 [N, C] of "instance", [1, C] of "batch"."""
    library = library_of(x, library)
    layout = layout_of(x)
    x = in_layout(x, layout)
    n, channels, height, width = x.shape
    mean, rstd = x.new_empty((2, n if norm == "instance" else 1, channels), dtype=torch.float32)
    scratch = scratch_for(library, x, norm)
    library.call(
        "norm_statistics", stream_of(x), x=address(x), mean=address(mean), rstd=address(rstd), scratch=address(scratch),
        scratch_bytes=scratch.numel(), n=n, pixels=height * width, channels=channels, norm=NORMS[norm],
        epsilon=epsilon, dtype=dtype_number(x), layout=LAYOUTS[layout],
    )  # fmt: skip
    return mean, rstd


def _row(x: Tensor, layout: Layout) -> int:
    return x.shape[1] if layout == "nhwc" else x.shape[1] * x.shape[2] * x.shape[3]


def _stride(x: Tensor, layout: Layout) -> int | None:
    """Elements between pixels (nhwc) or images (nchw) of a map or of some channels of one; None for other strides."""
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
    """gamma and beta as the kernels read them, and their stride; copied if they lie in another way."""
    for name, tensor in (("gamma", gamma), ("beta", beta)):
        expect_shape("modulate_dense", name, tensor, tuple(x.shape), x.dtype)
    stride = _stride(gamma, layout)
    if stride is None or stride != _stride(beta, layout):
        gamma, beta, stride = in_layout(gamma, layout), in_layout(beta, layout), _row(x, layout)
    return gamma, beta, stride


# ---- The specification ----


def statistics_torch(x: Tensor, norm: Norm, epsilon: float = EPSILON) -> tuple[Tensor, Tensor]:
    """mean and rstd of x, [N, C] of "instance" and [1, C] of "batch", in x's dtype."""
    axes = (2, 3) if norm == "instance" else (0, 2, 3)
    mean = x.mean(axes).view(-1, x.shape[1])
    variance = x.var(axes, correction=0).view(-1, x.shape[1])
    return mean, torch.rsqrt(variance + epsilon)


def modulate_dense_torch(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor | None,
    rstd: Tensor | None,
    leaky: bool = True,
) -> Tensor:
    """What `modulate_dense` computes from given statistics, in the dtype of its arguments; differentiable."""
    value = _normalised(x, mean, rstd) * (1 + gamma) + beta
    return F.leaky_relu(value, SLOPE) if leaky else value


def modulate_dense_backward_torch(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    dy: Tensor,
    mean: Tensor | None,
    rstd: Tensor | None,
    norm: Norm = "given",
    leaky: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `modulate_dense_backward` computes: the equations in kernels/cuda/modulate_dense.hpp."""
    xn = _normalised(x, mean, rstd)
    d = torch.where(xn * (1 + gamma) + beta > 0, dy, dy * (SLOPE if leaky else 1.0))
    return norm_backward_torch(xn, d * (1 + gamma), rstd, norm), d * xn, d


def norm_backward_torch(xn: Tensor, g: Tensor, rstd: Tensor | None, norm: Norm) -> Tensor:
    """The gradient at x from that at the normalised x, xn: the equation in kernels/cuda/norm.hpp."""
    scale = 1.0 if rstd is None else rstd[:, :, None, None]
    if norm == "given":
        return g * scale
    axes = (2, 3) if norm == "instance" else (0, 2, 3)
    return (g - g.mean(axes, keepdim=True) - xn * (g * xn).mean(axes, keepdim=True)) * scale


def _normalised(x: Tensor, mean: Tensor | None, rstd: Tensor | None) -> Tensor:
    if mean is None or rstd is None:
        return x
    return (x - mean[:, :, None, None]) * rstd[:, :, None, None]
