"""`accelerate` on MONAI's own networks: same results, gradients and `state_dict`, in two and three dimensions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.networks.nets import SPADEAutoencoderKL, SPADEDiffusionModelUNet, SPADENet
from torch import Tensor, nn

from spade_core import accelerate, label_map
from spade_core.drop_in.forward import CodebookForward

pytestmark = pytest.mark.usefixtures("seeded")

ERROR = 1e-10  # in float64
CLASSES = 4
SIDE = 8


def segmap(dims: int) -> Tensor:
    labels = torch.randint(0, CLASSES, (2, *[2] * dims))
    for axis in range(1, dims + 1):
        labels = labels.repeat_interleave(SIDE // 2, axis)
    return nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).double().contiguous()


def spadenet(dims: int) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    model = SPADENet(
        dims, 1, 1, CLASSES, input_shape=[SIDE] * dims, channels=[4, 8], z_dim=8, is_vae=False,
        spade_intermediate_channels=8,
    )  # fmt: skip
    return model, lambda net, seg: net(seg)[0]


def autoencoder(dims: int) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    model = SPADEAutoencoderKL(
        dims, CLASSES, num_res_blocks=(1, 1), channels=(4, 8), attention_levels=(False, False), latent_channels=4,
        norm_num_groups=4, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
        spade_intermediate_channels=8,
    )  # fmt: skip
    latent = torch.randn(2, 4, *[SIDE // 2] * dims, dtype=torch.float64)
    return model, lambda net, seg: net.decode(latent, seg)


def diffusion(dims: int) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    model = SPADEDiffusionModelUNet(
        dims, 1, 1, CLASSES, num_res_blocks=1, channels=(4, 8), attention_levels=(False, False), norm_num_groups=4,
        num_head_channels=4, spade_intermediate_channels=8,
    )  # fmt: skip
    noise = torch.randn(2, 1, *[SIDE] * dims, dtype=torch.float64)
    return model, lambda net, seg: net(noise, torch.tensor([3, 7]), seg)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("network", [spadenet, autoencoder, diffusion])
def test_results_and_gradients_are_the_same(network: Any, dims: int) -> None:
    plain, call = network(dims)
    for parameter in plain.parameters():
        if not parameter.any():  # MONAI's last convs start at zero, where every network draws the same
            nn.init.normal_(parameter, std=0.1)
    plain, seg = plain.double(), segmap(dims)
    fast = accelerate(copy.deepcopy(plain))
    layers = [module for module in fast.modules() if isinstance(module.__dict__.get("forward"), CodebookForward)]
    assert len(layers) == sum(type(module).__name__ == "SPADE" for module in plain.modules())
    assert list(fast.state_dict()) == list(plain.state_dict())
    expected, out = call(plain, seg), call(fast, seg)
    assert_close(expected, out)
    for result in (expected, out):
        result.square().mean().backward()
    # A bias before an instance norm has a gradient of 0 but for rounding, so all are judged by the largest.
    largest = max(float(one.grad.abs().max()) for one in plain.parameters() if one.grad is not None)
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            assert_close(one.grad, other.grad, largest)
    with torch.no_grad(), label_map(fast, seg):
        for _ in range(2):  # drawn, then kept
            assert_close(expected, call(fast, seg))


def assert_close(one: Tensor, other: Tensor, scale: float | None = None) -> None:
    one, other = one.detach(), other.detach()
    assert torch.isfinite(one).all()
    assert float((one - other).abs().max()) <= ERROR * (scale or float(one.abs().max()))
