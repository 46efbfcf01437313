"""One training step: gradients of one or more batches, then Adam on both sides, then the averages.

One fake image, judged once, trains both sides. The paper draws a second fake for the discriminator, and judges fake and
real once for each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from trainer.data.dataset import Batch
from trainer.networks import update_average
from trainer.objective import add_gradients
from trainer.training import Moment, Statistics, Training


def train_step(training: Training, batches: Sequence[Batch], moment: Moment) -> Statistics:
    """Train on `batches` (one, or as many as are accumulated) and move the averages. Returns means of the losses."""
    config, sides = training.config, [side for _, side in training.optimisers.items()]
    warmup = config.loss.kl_warmup
    kl_weight_factor = min(1.0, moment.images / warmup) if warmup else 1.0
    sums: Statistics = {}
    for i, batch in enumerate(batches):
        with training.optimisers.messages.sent() if i == len(batches) - 1 else nullcontext():
            statistics = add_gradients(training, batch, kl_weight_factor)
        for name, value in statistics.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value / len(batches)
    for side in sides:
        _move(side, moment.rate_factor)
    update_average(training.networks, config.optim.ema, moment.step)
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
