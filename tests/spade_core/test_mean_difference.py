"""`mean_difference` against PyTorch's l1_loss: values, gradients, dtypes and layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spade_core.codebook import modulate
from spade_core.mean_difference import mean_difference

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def maps(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 17), st.integers(1, 17)),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    seed=st.integers(0, 1000),
)
def test_value_and_gradient_are_those_of_l1_loss(
    shape: tuple[int, ...], layouts: tuple[torch.memory_format, torch.memory_format], seed: int
) -> None:
    a = maps(shape, torch.float64, seed).contiguous(memory_format=layouts[0]).requires_grad_()
    b = maps(shape, torch.float64, seed + 1).contiguous(memory_format=layouts[1])
    found, wanted = mean_difference(a, b), F.l1_loss(a, b)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(found * 3, a)[0], torch.autograd.grad(wanted * 3, a)[0]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_sum_keeps_float32s_precision(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulate, "SLICE", 1000)  # 125 pixels; the last slice is shorter
    a, b = maps((2, 8, 40, 40), dtype, 0).requires_grad_(), maps((2, 8, 40, 40), dtype, 1)
    found = mean_difference(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), F.l1_loss(a.double(), b.double()), rtol=1e-6, atol=0)
    found.backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert a.grad.dtype == dtype
    torch.testing.assert_close(a.grad.double(), (a - b).sign().double() / a.numel(), rtol=2**-8, atol=0)


def test_equal_values_have_no_gradient() -> None:
    a = torch.ones(2, 3, 1, 1, requires_grad=True)
    mean_difference(a, torch.ones(2, 3, 1, 1)).backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert not a.grad.any()
