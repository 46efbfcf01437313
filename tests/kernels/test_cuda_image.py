"""The emulated CUDA kernel of the image against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cuda_emulated import each_order
from tolerances import assert_within, gamma, stored_bound
from torch import Tensor

from kernels.cuda.host.library import DTYPES, CudaError, Library
from kernels.cuda.image.image import image_conv, image_conv_torch
from kernels.ops.image import pixels_numpy

each_dtype = pytest.mark.parametrize("dtype", list(DTYPES))


def random_case(dtype: str, size: tuple[int, int, int], channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x [N, C, H, W] and weight [3, C, 3, 3], channels last; bias [3], constant [C])."""
    random = torch.Generator().manual_seed(channels + size[2])
    kind, (n, height, width) = getattr(torch, dtype), size
    x = torch.randn(n, channels, height, width, generator=random)
    weight = torch.randn(3, channels, 3, 3, generator=random) / (9 * channels) ** 0.5
    bias, constant = torch.randn(3, generator=random), torch.randn(channels, generator=random)
    narrow = [t.to(kind).contiguous(memory_format=torch.channels_last) for t in (x, weight)]
    return narrow[0], narrow[1], bias, constant


@each_dtype
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (2, 17, 40), (1, 16, 32), (3, 33, 5)])
@pytest.mark.parametrize("channels", [5, 8, 24, 64, 136])
@pytest.mark.parametrize("with_constant", [True, False])
def test_every_size(
    emulated: Library, dtype: str, size: tuple[int, int, int], channels: int, with_constant: bool
) -> None:
    x, weight, bias, constant = random_case(dtype, size, channels)
    own = constant if with_constant else None
    values = torch.full((size[0], 3, *size[1:]), torch.nan)
    pixels = torch.zeros((*size, 3), dtype=torch.uint8)
    image_conv(x, weight, bias, constant=own, values=values, pixels=pixels, library=emulated)
    wide = x.double(), weight.double(), bias.double()
    expected = image_conv_torch(*wide, None if own is None else own.double())
    # The conv's input is rounded to T after two operations; the slope of tanh is at most 1.
    entering = wide[0].abs() if own is None else wide[0].abs() + own.double().abs()[:, None, None]
    stored = torch.from_numpy(stored_bound(gamma(2) * entering.numpy(), entering.numpy(), dtype))
    sizes = F.conv2d(entering, wide[1].abs(), wide[2].abs(), padding=1)
    bound = F.conv2d(stored, wide[1].abs(), padding=1) + gamma(9 * channels + 3) * sizes + gamma(8)
    assert_within(values, expected, bound)
    np.testing.assert_array_equal(pixels.numpy(), pixels_numpy(values.numpy()))


@each_dtype
def test_outputs_and_inputs_that_may_be_left_out(emulated: Library, dtype: str) -> None:
    x, weight, bias, _ = random_case(dtype, (1, 18, 9), 16)
    values, again = torch.zeros(2, 1, 3, 18, 9)
    pixels, only = torch.zeros((2, 1, 18, 9, 3), dtype=torch.uint8)
    image_conv(x, weight, bias, values=values, pixels=pixels, library=emulated)
    image_conv(x, weight, bias, values=again, library=emulated)
    image_conv(x, weight, bias, pixels=only, library=emulated)
    assert torch.equal(values, again)
    assert torch.equal(pixels, only)


def test_an_unaligned_map_takes_the_narrow_kernel(emulated: Library) -> None:
    x, weight, bias, constant = random_case("float16", (1, 6, 7), 16)
    room = torch.zeros(x.numel() + 1, dtype=x.dtype)
    moved = room[1:].view(1, 6, 7, 16).permute(0, 3, 1, 2).copy_(x)
    values, expected = torch.zeros(2, 1, 3, 6, 7)
    image_conv(x, weight, bias, constant=constant, values=expected, library=emulated)
    image_conv(moved, weight, bias, constant=constant, values=values, library=emulated)
    assert_within(values, expected, gamma(2 * 9 * 16) * 16)


@each_dtype
@each_order
def test_the_order_of_threads_changes_no_bit(
    emulated: Library, dtype: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias, constant = random_case(dtype, (2, 20, 20), 72)
    first, second = torch.zeros(2, 2, 3, 20, 20)
    image_conv(x, weight, bias, constant=constant, values=first, library=emulated)
    monkeypatch.setenv("SPADE_EMULATOR_ORDER", order)
    image_conv(x, weight, bias, constant=constant, values=second, library=emulated)
    assert torch.equal(first, second)


def test_bad_arguments_are_named(emulated: Library) -> None:
    x, weight, bias, _ = random_case("float32", (1, 4, 4), 8)
    values = torch.zeros(1, 3, 4, 4)
    with pytest.raises(CudaError, match=r"\[image_conv\] expected weight torch.float32 \[3, 8, 3, 3\] but got .*\[2, "):
        image_conv(x, weight[:2], bias, values=values, library=emulated)
    with pytest.raises(CudaError, match=r"\[image_conv\] expected x channels last but got strides \[128, 16, 4, 1\]"):
        image_conv(x.contiguous(), weight, bias, values=values, library=emulated)
    with pytest.raises(CudaError, match=r"\[image_conv\] expected pixels torch.uint8 \[1, 4, 4, 3\] but got"):
        image_conv(x, weight, bias, pixels=torch.zeros(1, 4, 4, 3), library=emulated)
    with pytest.raises(CudaError, match=r"\[image_conv\] .*null; got n=1"):
        image_conv(x, weight, bias, library=emulated)
