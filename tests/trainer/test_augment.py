"""DiffAugment: the changes are the paper's, have gradients, and reach both sides of a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_run import ALONE, batches, small, training
from torch import Tensor

from trainer.augment import color, cutout, diff_augment
from trainer.networks import build
from trainer.objective import add_gradients


def images(size: int = 8) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_color_shifts_brightness_then_scales_saturation_then_contrast() -> None:
    x = images()
    same = torch.tensor([[0.5, 0.5, 0.5]] * 2)
    torch.testing.assert_close(color(x, same), x)
    torch.testing.assert_close(color(x, torch.tensor([[0.75, 0.5, 0.5], [0.0, 0.5, 0.5]]))[1], x[1] - 0.5)
    grey = color(x, torch.tensor([[0.5, 0.0, 0.5]] * 2))
    torch.testing.assert_close(grey, x.mean(1, keepdim=True).expand_as(x))
    flat = color(x, torch.tensor([[0.5, 0.5, 0.0]] * 2))
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(flat, mean + (x - mean) / 2)


@pytest.mark.parametrize(
    ("centre", "rows", "columns"),
    [
        ((0.5, 0.5), range(2, 6), range(2, 6)),
        ((0.0, 0.999), range(2), range(6, 8)),
        ((0.3, 0.9), range(4), range(6, 8)),
    ],
)
def test_cutout_hides_a_rectangle_of_half_the_sides_that_may_reach_over_the_edge(
    centre: tuple[float, float], rows: range, columns: range
) -> None:
    x = images()
    expected = x.numpy().copy()
    expected[:, :, rows.start : rows.stop, columns.start : columns.stop] = 0
    np.testing.assert_array_equal(cutout(x, torch.tensor([centre] * 2)).numpy(), expected)


def test_the_changes_have_the_gradient_of_their_differences() -> None:
    random = torch.tensor([[0.2, 0.9, 0.4, 0.1, 0.8], [0.7, 0.3, 0.6, 0.5, 0.5]])
    x = images(4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, random, "color+cutout"), x)


@pytest.mark.parametrize("updates", ["shared", "alternating"])
def test_both_sides_train_on_changed_images(updates: str) -> None:
    found = {}
    for policy in ("none", "color+cutout"):
        config = small(loss={"diffaugment": policy, "pixel": 0.0}, optim={"updates": updates})
        networks = build(config, ALONE)
        add_gradients(training(networks, config), batches(config)[0], 1.0)
        assert all(p.grad is not None for _, module in networks.trained() for p in module.parameters())
        found[policy] = [next(module.parameters()).grad for _, module in networks.trained()]
    for plain, changed in zip(*found.values(), strict=True):
        assert not torch.equal(plain, changed)


def test_every_image_has_random_numbers_of_its_own_that_come_again() -> None:
    config = small()
    first, again = batches(config)[0], batches(config)[0]
    numbers = torch.cat([first.changes, first.second_changes])
    assert len(numbers.unique(dim=0)) == len(numbers)
    assert torch.equal(first.changes, again.changes)
    assert 0 <= float(numbers.min()) < float(numbers.max()) < 1
