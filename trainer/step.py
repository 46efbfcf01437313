"""One training step: gradients of one or more batches, then Adam on both sides, then the averages.

`optim.updates` says how. "alternating" is the paper's way: a step of generator and encoder on a fake image; then a
second fake image, by the moved generator, for a step of the discriminator. So a step draws twice and judges twice.
"shared" is the fast way: one fake image, judged once, trains both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch

from trainer.data.dataset import Batch
from trainer.networks import update_average
from trainer.objective import (
    add_discriminator_gradients,
    add_generator_gradients,
    add_gradients,
    add_r1_gradients,
)
from trainer.processes import GradientMessages
from trainer.training import Moment, Statistics, Training


def train_step(training: Training, batches: Sequence[Batch], moment: Moment) -> Statistics:
    """Train on `batches` (one, or as many as are accumulated) and move the averages. Returns means of the losses."""
    config, sides = training.config, training.optimisers
    warmup = config.loss.kl_warmup
    kl_weight_factor = min(1.0, moment.images / warmup) if warmup else 1.0
    penalties: Statistics = {}
    if config.loss.r1 and moment.step % config.loss.r1_every == 0:  # the discriminator's gradients wait for the rest
        penalties = _over_passes(batches, [], lambda batch: add_r1_gradients(training, batch))
    if config.optim.updates == "shared":
        messages = [sides.generator_messages, sides.discriminator_messages]
        means = _over_passes(batches, messages, lambda batch: add_gradients(training, batch, kl_weight_factor))
        _move(sides.generator, moment.rate_factor)
    else:
        means = _over_passes(
            batches,
            [sides.generator_messages],
            lambda batch: add_generator_gradients(training, batch, kl_weight_factor),
        )
        _move(sides.generator, moment.rate_factor)
        means |= _over_passes(
            batches, [sides.discriminator_messages], lambda batch: add_discriminator_gradients(training, batch)
        )
    _move(sides.discriminator, moment.rate_factor)
    update_average(training.networks, config.optim.ema, moment.step)
    return means | penalties


def _over_passes(
    batches: Sequence[Batch], messages: Sequence[GradientMessages], add: Callable[[Batch], Statistics]
) -> Statistics:
    """Add the gradients of every batch, and share them with the last one; returns means of the statistics."""
    sums: Statistics = {}
    for i, batch in enumerate(batches):
        with ExitStack() as stack:
            if i == len(batches) - 1:
                for message in messages:
                    stack.enter_context(message.sent())
            statistics = add(batch)
        for name, value in statistics.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value / len(batches)
    return sums


def _move(side: torch.optim.Adam, rate_factor: float) -> None:
    """One step of Adam at its learning rates times `rate_factor`; the gradients are freed."""
    rates = [group["lr"] for group in side.param_groups]
    for group, rate in zip(side.param_groups, rates, strict=True):
        group["lr"] = rate * rate_factor
    side.step()
    side.zero_grad(set_to_none=True)
    for group, rate in zip(side.param_groups, rates, strict=True):
        group["lr"] = rate
