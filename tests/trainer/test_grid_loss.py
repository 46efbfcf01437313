"""The grid loss: 0 for the real image's own texture, large for a grid, with a gradient that takes the grid away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.grid_loss import grid_loss

SYMBOLS = torch.zeros((2, 64, 64), dtype=torch.int32)


def texture(seed: int) -> Tensor:
    """Noise without a period, on 2 images."""
    return 0.1 * torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(seed))


def woven(period: int) -> Tensor:
    """Small squares of noise, each repeated as NEAREST upsampling does."""
    small = 0.1 * torch.randn((2, 3, 64 // period, 64 // period), generator=torch.Generator().manual_seed(3))
    return F.interpolate(small, scale_factor=period, mode="nearest")


def test_a_texture_costs_little_and_a_grid_much() -> None:
    real = texture(0)
    assert grid_loss(real, real, SYMBOLS) == 0
    assert grid_loss(texture(1), real, SYMBOLS) < 0.5
    stripes = torch.zeros((2, 3, 64, 64))
    stripes[..., ::4] = 0.2
    assert grid_loss(real + stripes, real, SYMBOLS) > 1
    assert grid_loss(real, real + stripes, SYMBOLS) == 0, "a grid of the real image is no fault"


def test_descent_takes_the_grid_away_and_keeps_the_rest() -> None:
    real = texture(0)
    stripes = torch.zeros((2, 3, 64, 64))
    stripes[..., ::4] = 0.2
    image = (texture(1) + stripes).requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.01)
    first = grid_loss(image, real, SYMBOLS).item()
    for _ in range(40):
        optimiser.zero_grad()
        grid_loss(image, real, SYMBOLS).backward()
        optimiser.step()
    assert grid_loss(image, real, SYMBOLS).item() < 0.3 * first
    assert (image.detach() - texture(1))[..., ::4].mean() < stripes[..., ::4].mean()


def test_only_plain_squares_count() -> None:
    mixed = torch.arange(64 * 64, dtype=torch.int32).view(1, 64, 64).expand(2, -1, -1)
    image = woven(4).requires_grad_()
    loss = grid_loss(image, texture(0), mixed)
    loss.backward()
    assert loss == 0
    assert image.grad is not None
    assert not image.grad.any()
    assert grid_loss(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), SYMBOLS[:1, :16, :16]) == 0
