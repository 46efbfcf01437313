"""The emulated CUDA kernels of the dense form and of the norms against their specification in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from cuda_emulated import each_order
from tolerances import assert_within, gamma, normalised_rounding, stored_bound
from torch import Tensor

from kernels.cuda.host.library import DTYPES, CudaError, Layout, Library, Norm, Place
from kernels.cuda.host.tensors import in_layout
from kernels.cuda.modulate.modulate_dense import (
    modulate_dense,
    modulate_dense_backward,
    modulate_dense_backward_torch,
    modulate_dense_torch,
)
from kernels.cuda.norm.norm import Statistics, norm_statistics, statistics_torch

each_dtype = pytest.mark.parametrize("dtype", list(DTYPES))
each_layout = pytest.mark.parametrize("layout", ["nchw", "nhwc"])
each_norm = pytest.mark.parametrize("norm", ["given", "instance", "batch"])

# N, H, W: small planes, odd widths, and a plane that in no layout fits the shared memory of a block.
SIZES = [(1, 1, 2), (2, 3, 5), (3, 4, 8), (2, 40, 40)]


@dataclass(frozen=True)
class Case:
    """The inputs of one modulation."""

    x: Tensor
    gamma: Tensor
    beta: Tensor
    dy: Tensor

    @property
    def wide(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.x.double(), self.gamma.double(), self.beta.double(), self.dy.double()


def make(dtype: str, layout: Layout, size: tuple[int, int, int], channels: int, offset: float = 0.5) -> Case:
    random = torch.Generator().manual_seed(channels * size[2] + size[1])
    shape = (size[0], channels, *size[1:])
    tensors = [torch.randn(shape, generator=random).to(getattr(torch, dtype)) for _ in range(4)]
    tensors[0] += offset
    return Case(*(in_layout(t, layout) for t in tensors))


def means(t: Tensor, norm: Norm) -> Tensor:
    return t.mean((2, 3) if norm == "instance" else (0, 2, 3), keepdim=True)


def terms(x: Tensor, norm: Norm) -> int:
    return 0 if norm == "given" else x[0, 0].numel() * (len(x) if norm == "batch" else 1)


def given(x: Tensor, norm: Norm) -> Statistics | None:
    if norm != "given":
        return None
    own = statistics_torch(x.float(), "instance")
    return Statistics(own.mean + 0.1, own.rstd * 1.5)


def doubled(statistics: Statistics) -> Statistics:
    return replace(statistics, mean=statistics.mean.double(), rstd=statistics.rstd.double())


def check_forward(library: Library, case: Case, dtype: str, norm: Norm, leaky: bool = True) -> Tensor:
    extra = given(case.x, norm)
    out, found = modulate_dense(
        case.x, case.gamma, case.beta, norm=norm, statistics=extra, leaky=leaky, library=library
    )
    x, gamma_, beta, _ = case.wide
    exact = doubled(extra) if extra else statistics_torch(x, norm)
    expected = modulate_dense_torch(x, gamma_, beta, exact, leaky)
    scale = exact.rstd[:, :, None, None]
    sizes = (x.abs() + exact.mean.abs()[:, :, None, None] + means(x.abs(), norm)) * scale * (1 + gamma_.abs())
    rounding = normalised_rounding(terms(x, norm))
    assert_within(out.double(), expected, stored_bound(rounding * (sizes + beta.abs()), expected, dtype))
    assert found is not None
    assert_within(found.mean.double(), exact.mean, rounding * means(x.abs(), norm).flatten(1).expand_as(found.mean))
    spread = 1 + exact.mean.square() * exact.rstd.square()
    assert_within(found.rstd.double(), exact.rstd, rounding * spread * exact.rstd)
    return out


def check_backward(library: Library, case: Case, dtype: str, norm: Norm, leaky: bool = True) -> None:
    x, gamma_, beta, dy = case.wide
    extra = given(case.x, norm)
    statistics = extra or norm_statistics(case.x, norm, library=library)
    gradients = modulate_dense_backward(
        case.x, case.gamma, case.beta, case.dy, statistics, leaky=leaky, library=library
    )  # fmt: skip
    exact = doubled(statistics)
    mean, rstd = exact.mean, exact.rstd
    expected = modulate_dense_backward_torch(x, gamma_, beta, dy, exact, leaky)
    xn = ((x - mean[:, :, None, None]) * rstd[:, :, None, None]).abs()
    g = (dy * (1 + gamma_.abs())).abs()
    sizes = g if norm == "given" else g + means(g, norm) + xn * means(g * xn, norm)
    spread = (x.abs() + mean.abs()[:, :, None, None]) * rstd[:, :, None, None]
    rounding = normalised_rounding(terms(x, norm), dtype, stored=0 if norm == "given" else 2)
    bounds = (
        rounding * sizes * rstd[:, :, None, None] * (1 + spread),
        gamma(5) * dy.abs() * spread,
        gamma(2) * dy.abs(),
    )
    for name, got, wanted, bound in zip(("dx", "dgamma", "dbeta"), gradients, expected, bounds, strict=True):
        try:
            assert_within(got.double(), wanted, stored_bound(bound, wanted, dtype))
        except AssertionError as error:
            raise AssertionError(name) from error


@each_dtype
@each_layout
@each_norm
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 8, 20])
def test_against_the_specification(
    emulated: Library, dtype: str, layout: Layout, norm: Norm, size: tuple[int, int, int], channels: int
) -> None:
    case = make(dtype, layout, size, channels)
    check_forward(emulated, case, dtype, norm)
    check_backward(emulated, case, dtype, norm)


@each_layout
@each_norm
def test_without_the_activation(emulated: Library, layout: Layout, norm: Norm) -> None:
    case = make("float32", layout, (2, 5, 6), 12)
    check_forward(emulated, case, "float32", norm, leaky=False)
    check_backward(emulated, case, "float32", norm, leaky=False)


@each_layout
def test_without_statistics(emulated: Library, layout: Layout) -> None:
    case = make("float32", layout, (2, 5, 6), 12)
    out, statistics = modulate_dense(case.x, case.gamma, case.beta, library=emulated)
    assert statistics is None
    x, gamma_, beta, _ = case.wide
    expected = modulate_dense_torch(x, gamma_, beta, None)
    assert_within(out.double(), expected, gamma(4) * ((1 + gamma_.abs()) * x.abs() + beta.abs()))


@each_layout
@each_norm
@pytest.mark.parametrize("channels", [8, 5])
def test_gamma_and_beta_as_halves_of_one_map(emulated: Library, layout: Layout, norm: Norm, channels: int) -> None:
    case = make("float16", layout, (2, 6, 4), channels)
    both = in_layout(torch.cat([case.gamma, case.beta], dim=1), layout)
    halves = Case(case.x, *both.chunk(2, dim=1), case.dy)
    assert torch.equal(
        check_forward(emulated, halves, "float16", norm), check_forward(emulated, case, "float16", norm)
    )  # fmt: skip
    check_backward(emulated, halves, "float16", norm)


@each_layout
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_mean_far_above_the_deviation_loses_nothing(emulated: Library, layout: Layout, norm: Norm) -> None:
    """The mean of the squares minus the square of the mean would lose every digit here."""
    x = make("float32", layout, (2, 40, 40), 8, offset=4096.0).x
    found, exact = norm_statistics(x, norm, library=emulated), statistics_torch(x.double(), norm)
    assert_within(found.mean.double(), exact.mean, gamma(16) * exact.mean.abs())
    # Rounding a mean of 4096 to float32 moves each deviation, of about 1, by up to 2^-12.
    assert_within(found.rstd.double(), exact.rstd, 2.0**-12 * exact.rstd)


@each_layout
@pytest.mark.parametrize("norm", ["instance", "batch"])
@each_order
def test_the_order_of_threads_changes_no_bit(
    emulated: Library, layout: Layout, norm: Norm, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make("float32", layout, (2, 48, 40), 8)
    statistics = norm_statistics(case.x, norm, library=emulated)

    def run() -> tuple[Tensor, ...]:
        own = norm_statistics(case.x, norm, library=emulated)
        forward = modulate_dense(case.x, case.gamma, case.beta, norm=norm, library=emulated)[0]
        backward = modulate_dense_backward(case.x, case.gamma, case.beta, case.dy, statistics, library=emulated)
        return own.mean, own.rstd, forward, *backward

    usual = run()
    monkeypatch.setenv("SPADE_EMULATOR_ORDER", order)
    for first, second in zip(usual, run(), strict=True):
        assert torch.equal(first, second)


def test_bad_arguments_are_named(emulated: Library) -> None:
    case = make("float32", "nhwc", (1, 4, 6), 8)
    with pytest.raises(CudaError, match=r"expected norm given, instance, batch but got 'layer'"):
        modulate_dense(case.x, case.gamma, case.beta, norm="layer", library=emulated)  # type: ignore[arg-type]
    with pytest.raises(CudaError, match=r"expected gamma torch.float32 \[1, 8, 4, 6\] but got .* \[1, 4, 4, 6\]"):
        modulate_dense(case.x, case.gamma[:, :4], case.beta, library=emulated)
    given_too = Statistics(torch.zeros(1, 8), torch.ones(1, 8))
    with pytest.raises(CudaError, match=r"expected no statistics for norm 'batch', which computes them, but got some"):
        modulate_dense(case.x, case.gamma, case.beta, norm="batch", statistics=given_too, library=emulated)
    with pytest.raises(CudaError, match=r"\[norm_statistics\] scratch is null, too small.* got scratch_bytes=0, n=1"):
        emulated.call(
            "norm_statistics", Place(), x=case.x.data_ptr(), mean=case.x.data_ptr(), rstd=case.x.data_ptr(),
            scratch=None, scratch_bytes=0, n=1, pixels=24, channels=8, norm=1, dtype=0, layout=1,
        )  # fmt: skip
    with pytest.raises(CudaError, match=r"\[norm_scratch_bytes\] a size is below 1.* got n=0"):
        emulated.norm_scratch_bytes(0, 24, 8, "batch")
