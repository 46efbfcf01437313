"""The gradients of both forms of the modulation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cuda_emulated import each_order
from tolerances import assert_within, gamma, normalised_rounding, stored_bound
from torch import Tensor

from kernels.cuda.autograd import spade_modulate, spade_modulate_codebook
from kernels.cuda.host.library import DTYPES, Library, Norm
from kernels.cuda.modulate.modulate_codebook import (
    Modulation,
    modulate_codebook_backward,
    modulate_codebook_backward_torch,
    sort_index,
)
from kernels.cuda.norm.norm import Statistics, norm_statistics, statistics_torch

each_norm = pytest.mark.parametrize("norm", ["given", "instance", "batch"])


def doubles(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()


@each_norm
@pytest.mark.parametrize("leaky", [True, False])
def test_gradcheck_of_the_dense_form(norm: Norm, leaky: bool) -> None:
    statistics = None
    if norm == "given":
        statistics = Statistics(torch.full((1, 3), 0.1, dtype=torch.float64), torch.full((1, 3), 1.2).double())

    def run(x: Tensor, gamma_: Tensor, beta: Tensor) -> Tensor:
        return spade_modulate(x, gamma_, beta, norm=norm, leaky=leaky, statistics=statistics)[0]

    assert torch.autograd.gradcheck(run, tuple(doubles(2, 3, 4, 2, seed=i) for i in range(3)))


@each_norm
@pytest.mark.parametrize("shift", [0, 1])
def test_gradcheck_of_the_codebook_form(norm: Norm, shift: int) -> None:
    index = torch.randint(0, 5, (2, 4, 6), dtype=torch.int32, generator=torch.Generator().manual_seed(0))

    def run(x: Tensor, entries: Tensor) -> Tensor:
        statistics = None if norm == "given" else statistics_torch(x.detach(), norm)
        return spade_modulate_codebook(x, entries, index, Modulation(statistics, shift))

    assert torch.autograd.gradcheck(run, (doubles(2, 3, 4 >> shift, 6 >> shift), doubles(6, 6, seed=1)))


@each_norm
def test_the_dense_form_trains_on_the_kernels(emulated: Library, norm: Norm) -> None:
    leaves = [doubles(2, 8, 4, 6, seed=i).detach().float().requires_grad_() for i in range(3)]
    out, statistics = spade_modulate(*leaves, norm=norm, library=emulated)
    assert statistics is None or not statistics.mean.requires_grad
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    gradients = torch.autograd.grad((out * weight).sum(), leaves)
    x, gamma_, beta = wide = [t.detach().double().requires_grad_() for t in leaves]
    xn = x
    if norm != "given":
        xn = F.instance_norm(x) if norm == "instance" else F.batch_norm(x, None, None, training=True)
    expected = torch.autograd.grad((F.leaky_relu(xn * (1 + gamma_) + beta, 0.2) * weight).sum(), wide)
    for got, exact in zip(gradients, expected, strict=True):
        assert_within(got.double(), exact, normalised_rounding(48) * 20)  # all values are below 20


# One patch for all pixels (a run over many chunks), a patch for each pixel, a few long runs, and random patches.
PIXELS = 2 * 20 * 26
RANDOM = torch.Generator().manual_seed(2)
INDICES = {
    "one": torch.zeros(PIXELS),
    "distinct": torch.randperm(PIXELS, generator=RANDOM),
    "runs": torch.arange(PIXELS) // 150 % 5,
    "random": torch.randint(0, 9, (PIXELS,), generator=RANDOM),
}


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("kind", list(INDICES))
@pytest.mark.parametrize(("channels", "shift"), [(8, 0), (5, 1), (40, 1)])
@pytest.mark.parametrize("ordered", [True, False])
def test_codebook_gradients(emulated: Library, dtype: str, kind: str, channels: int, shift: int, ordered: bool) -> None:
    random = torch.Generator().manual_seed(channels)
    n, height, width = 2, 20, 26
    index = INDICES[kind].int().view(n, height, width)
    kind_ = getattr(torch, dtype)
    x = torch.randn(n, channels, height >> shift, width >> shift, generator=random).to(kind_)
    entries = torch.randn(int(index.max()) + 3, 2 * channels, generator=random).to(kind_)
    dy = torch.randn(n, channels, height, width, generator=random).to(kind_)
    order = sort_index(index) if ordered else None
    how = Modulation(shift=shift)
    got = modulate_codebook_backward(x, entries, index, dy, how, order=order, library=emulated)
    wide = (x.double(), entries.double(), index, dy.double())
    expected = modulate_codebook_backward_torch(*wide, how)
    assert got[1].dtype == torch.float32
    sizes = modulate_codebook_backward_torch(wide[0].abs(), wide[1].abs(), index, wide[3].abs(), how)
    assert_within(got[0].double(), expected[0], stored_bound(gamma(6) * sizes[0], expected[0], dtype))
    longest = int(index.flatten().bincount().max())
    assert_within(got[1].double(), expected[1], gamma(longest + 4) * sizes[1] + 1e-30)


@each_order
def test_sorted_sums_do_not_depend_on_the_order_of_threads(
    emulated: Library, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(3)
    index = torch.randint(0, 4, (1, 30, 30), generator=random).int()
    x, dy = torch.randn(2, 1, 8, 30, 30, generator=random)
    entries = torch.randn(4, 16, generator=random)
    own = sort_index(index)
    first = modulate_codebook_backward(x, entries, index, dy, order=own, library=emulated)
    monkeypatch.setenv("SPADE_EMULATOR_ORDER", order)
    second = modulate_codebook_backward(x, entries, index, dy, order=own, library=emulated)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_codebook_gradients_through_the_norm(emulated: Library, norm: Norm, dtype: str) -> None:
    random = torch.Generator().manual_seed(5)
    index = torch.randint(0, 4, (2, 8, 12), generator=random).int()
    kind = getattr(torch, dtype)
    x = torch.randn(2, 16, 4, 6, generator=random).to(kind).requires_grad_()
    entries = torch.randn(4, 32, generator=random).to(kind).requires_grad_()
    own = norm_statistics(x.detach(), norm, library=emulated)
    how = Modulation(own, shift=1)
    out = spade_modulate_codebook(x, entries, index, how, order=sort_index(index), library=emulated)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out).to(kind)
    got = torch.autograd.grad((out * weight).sum(), (x, entries))
    exact_how = Modulation(Statistics(own.mean.double(), own.rstd.double(), norm), shift=1)
    arguments = (x.detach().double(), entries.detach().double(), index, weight.double())
    expected = modulate_codebook_backward_torch(*arguments, exact_how)
    rounding = normalised_rounding(192, dtype, stored=2)
    for gradient, exact in zip(got, expected, strict=True):
        assert_within(
            gradient.double(), exact, stored_bound(rounding * 30, exact, dtype)
        )  # all sums of absolute values are below 30
