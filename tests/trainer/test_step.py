"""A training step: both forms give the same gradients, every network moves, and losses fall."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from small_run import ALONE, batches, small, training

from spade_core.models.spectral import folded_state
from trainer.config import TrainConfig
from trainer.networks import Networks, build, update_average
from trainer.objective import add_gradients
from trainer.step import train_step
from trainer.training import Moment, learning_rate, optimisers

# The bar of the project for gradients of the two forms in float32, relative to the largest of a parameter.
TOLERANCE = 1e-4


def gradients(networks: Networks, config: TrainConfig) -> dict[str, torch.Tensor]:
    add_gradients(training(networks, config), batches(config)[0], 1.0)
    found = {}
    for name, module in networks.trained():
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{name}.{key} has no gradient"
            found[f"{name}.{key}"] = parameter.grad
    return found


@pytest.mark.parametrize("norm", ["instance", "syncbatch"])
def test_both_forms_give_every_parameter_the_same_gradient(norm: str) -> None:
    # One pixel is no variance: instance norm of the smallest level needs images of more than 32 pixels.
    model = {"norm": norm, "height": 64, "width": 64}
    dense, codebook = (small(model=model, networks={"form": form}) for form in ("dense", "codebook"))
    networks = build(dense, ALONE)
    for module in (networks.generator, networks.encoder):
        assert module is not None
        for parameter in module.parameters():  # away from the near-zero start, where all would agree
            parameter.data.mul_(20)
    expected = gradients(deepcopy(networks), dense)
    found = gradients(networks, codebook)
    # A bias before a norm has a gradient of rounding alone: some units in the last place of the largest gradient.
    floor = 1e-2 * max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        error = float((found[name] - gradient).abs().max())
        assert error <= TOLERANCE * max(float(gradient.abs().max()), floor), name


def test_a_step_moves_every_network_and_the_averages() -> None:
    config = small()
    networks = build(config, ALONE)
    before = {name: deepcopy(module.state_dict()) for name, module in networks.everything()}
    sums = train_step(training(networks, config), batches(config), Moment())
    assert set(sums) == {"kl", "gan", "feature_matching", "pixel", "discriminator", "score_real", "score_fake"}
    for name, module in networks.everything():
        moved = [key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[name][key])]
        assert len(moved) >= 0.9 * len(before[name]), name
    assert all(p.grad is None for _, module in networks.trained() for p in module.parameters())


def test_the_weight_of_kl_follows_the_images_seen_and_not_the_steps() -> None:
    config = small(loss={"kl_warmup": 100, "kl": 1.0, "pixel": 0.0, "feature_matching": 0.0})
    moved = {}
    for step, images in ((5, 0), (1, 50), (5, 50)):
        networks = build(config, ALONE)
        before = [p.clone() for p in networks.encoder.parameters()] if networks.encoder else []
        train_step(training(networks, config), batches(config), Moment(step, images))
        assert networks.encoder is not None
        moved[step, images] = [p - q for p, q in zip(networks.encoder.parameters(), before, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(moved[1, 50], moved[5, 50], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(moved[5, 0], moved[5, 50], strict=True))


def test_losses_fall_when_one_batch_is_learnt() -> None:
    config = small(loss={"pixel": 10.0, "feature_matching": 0.0})
    learner, batch = training(build(config, ALONE), config), batches(config)
    errors = [float(train_step(learner, batch, Moment(i, 2 * i))["pixel"]) for i in range(15)]
    assert errors[-1] < 0.8 * errors[0]


def test_accumulated_passes_are_one_step_of_the_larger_batch() -> None:
    together = small(model={"norm": "instance", "height": 64, "width": 64}, optim={"batch": 4})
    apart = small(model={"norm": "instance", "height": 64, "width": 64}, optim={"batch": 2, "accumulate": 2})
    found = []
    for config, count in ((together, 1), (apart, 2)):
        # Without spectral norm, since every pass makes a power iteration.
        networks = build(small_without_spectral(config), ALONE)
        for batch in batches(config, count):
            add_gradients(training(networks, config), batch, 1.0)
        found.append({k: p.grad for k, p in networks.generator.named_parameters()})
    for name, expected in found[0].items():
        got = found[1][name]
        assert expected is not None
        assert got is not None
        assert float((got - expected).abs().max()) <= TOLERANCE * max(float(expected.abs().max()), 1e-3), name


def small_without_spectral(config: TrainConfig) -> TrainConfig:
    return replace(config, networks=replace(config.networks, spectral_norm=False))


@pytest.mark.parametrize(("images", "factor"), [(0, 1.0), (80, 1.0), (100, 0.5), (120, 0.0), (130, 0.0)])
def test_the_learning_rate_is_constant_then_falls_to_zero(images: int, factor: float) -> None:
    assert learning_rate(images, 8, small(optim={"epochs": 10, "decay_epochs": 5}).optim) == pytest.approx(factor)


@pytest.mark.parametrize(("images", "factor"), [(80, 1.0), (87, 1.0), (88, 0.8), (95, 0.8), (119, 0.2), (120, 0.0)])
def test_the_learning_rate_may_fall_once_an_epoch(images: int, factor: float) -> None:
    config = small(optim={"epochs": 10, "decay_epochs": 5, "decay_each": "epoch"}).optim
    assert learning_rate(images, 8, config) == pytest.approx(factor)


def test_two_time_scales() -> None:
    networks = build(small(), ALONE)
    for ttur, expected, betas in ((True, (1e-3, 4e-3), (0, 0.9)), (False, (2e-3, 2e-3), (0.5, 0.999))):
        adam = optimisers(networks, small(optim={"ttur": ttur}).optim)
        assert tuple(side.param_groups[0]["lr"] for _, side in adam.items()) == pytest.approx(expected)
        assert all(side.param_groups[0]["betas"] == betas for _, side in adam.items())
    given = small(optim={"ttur": False, "beta1": 0.0, "beta2": 0.99}).optim
    assert given.betas == (0.0, 0.99)


def test_the_average_is_of_the_weights_as_used() -> None:
    networks = build(small(), ALONE)
    before = {key: tensor.clone() for key, tensor in networks.average.state_dict().items()}
    update_average(networks, 0.999, step=80)
    now = folded_state(networks.generator)
    for key, tensor in networks.average.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.9 * before[key] + 0.1 * now[key], msg=key)


def test_bfloat16_stays_near_float32() -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        config = small(model={"height": 64, "width": 64}, optim={"batch": 4}, run={"precision": precision})
        parts = gradients(build(config, ALONE), config).items()
        assert all(gradient.dtype == torch.float32 for _, gradient in parts)
        found[precision] = [
            torch.cat([g.flatten() for name, g in parts if name.startswith(side)])
            for side in ("generator", "encoder", "discriminator")
        ]
    for half, whole in zip(found["bf16"], found["fp32"], strict=True):
        assert torch.nn.functional.cosine_similarity(half, whole, dim=0) > 0.95


def test_weights_start_xavier_normal_of_gain_a_fiftieth() -> None:
    networks = build(small(model={"nf": 4}), ALONE)
    for name, module in networks.everything():
        if not name.startswith("average"):
            continue  # the averages have plain weights, without spectral norm
        for key, weight in module.named_parameters():
            if weight.ndim == 1:
                assert not weight.any(), key
            elif weight.numel() > 2000:
                taps = weight[0, 0].numel()
                wanted = 0.02 * (2 / (taps * (weight.shape[0] + weight.shape[1]))) ** 0.5
                assert float(weight.std()) == pytest.approx(wanted, rel=0.1), key
