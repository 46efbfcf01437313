"""The lazy R1 penalty in a training step: its gradient, and when it is taken."""

from __future__ import annotations

from copy import deepcopy

import torch
from small_run import ALONE, batches, small, training

from trainer.networks import build
from trainer.objective import add_r1_gradients
from trainer.step import train_step
from trainer.training import Moment


def test_its_gradient_is_that_of_its_differences_on_the_whole_discriminator() -> None:
    config = small(loss={"r1": 10.0, "r1_every": 1})
    networks = build(config, ALONE)
    for _, module in networks.everything():
        module.double()
    run, batch = training(networks, config), batches(config)[0]
    before = deepcopy(networks.discriminator.state_dict())
    parameters = list(networks.discriminator.parameters())
    value = float(add_r1_gradients(run, batch)["r1"])
    assert value > 0
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    after = networks.discriminator.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "no power iteration is made"

    random = torch.Generator().manual_seed(1)
    step = 1e-4
    ways = [torch.randn(p.shape, generator=random, dtype=p.dtype) * p.detach().abs().mean() for p in parameters]
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, way in zip(parameters, ways, strict=True):
                parameter.add_(way, alpha=sign * step)
        values.append(float(add_r1_gradients(run, batch)["r1"]))
        with torch.no_grad():
            for parameter, way in zip(parameters, ways, strict=True):
                parameter.add_(way, alpha=-sign * step)
    expected = (values[0] - values[1]) / (2 * step)
    found = float(sum((g * way).sum() for g, way in zip(gradients, ways, strict=True)))
    assert abs(found - expected) <= 1e-3 * abs(expected)


def test_it_is_taken_every_few_steps_and_weighs_as_many_times_more() -> None:
    config = small(loss={"r1": 2.0, "r1_every": 3})
    networks = build(config, ALONE)
    run, batch = training(networks, config), batches(config)[0]
    taken = ["r1" in train_step(run, [batch], Moment(step=step)) for step in range(4)]
    assert taken == [True, False, False, True]

    once, thrice = (training(deepcopy(networks), small(loss={"r1": 2.0, "r1_every": n})) for n in (1, 3))
    for one in (once, thrice):
        one.networks.discriminator.zero_grad()
        add_r1_gradients(one, batch)
    for slow, fast in zip(
        once.networks.discriminator.parameters(), thrice.networks.discriminator.parameters(), strict=True
    ):
        if slow.grad is not None:
            assert fast.grad is not None
            torch.testing.assert_close(3 * slow.grad, fast.grad)
