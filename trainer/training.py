"""What a training step needs: networks, optimisers, perceptual loss, configuration, processes, and when it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import OptimConfig, TrainConfig
from trainer.networks import Networks
from trainer.perceptual import PerceptualLoss
from trainer.processes import GradientMessages, Processes

Statistics = dict[str, Tensor]
"""Losses and mean scores by name, detached scalars."""


@dataclass
class Optimisers:
    """One Adam for generator and encoder, one for the discriminator, and the messages that share their gradients."""

    generator: torch.optim.Adam
    discriminator: torch.optim.Adam
    generator_messages: GradientMessages
    discriminator_messages: GradientMessages

    def items(self) -> Sequence[tuple[str, torch.optim.Adam]]:
        """The two by name."""
        return ("generator", self.generator), ("discriminator", self.discriminator)


@dataclass
class Training:
    """What stays the same from step to step. `perceptual` is None where the perceptual loss is off."""

    networks: Networks
    optimisers: Optimisers
    perceptual: PerceptualLoss | None
    config: TrainConfig
    processes: Processes


@dataclass(frozen=True)
class Moment:
    """When a step is taken.

    Attributes:
        step: steps taken before; the averages follow faster in the first ones.
        images: images seen before; loss.kl_warmup counts them.
        rate_factor: the factor on both learning rates, from `learning_rate`.
    """

    step: int = 0
    images: int = 0
    rate_factor: float = 1.0


def optimisers(networks: Networks, config: OptimConfig, world: int = 1) -> Optimisers:
    """Adam for both sides. With TTUR the generator learns at lr / 2, the discriminator at 2 lr.

    SPADE, section 4 and appendix A; Heusel et al., NeurIPS 2017, arXiv 1706.08500.
    """
    slow, fast = (config.lr / 2, config.lr * 2) if config.ttur else (config.lr, config.lr)
    encoder = [] if networks.encoder is None else list(networks.encoder.parameters())
    generator, discriminator = list(networks.generator.parameters()), list(networks.discriminator.parameters())
    return Optimisers(
        torch.optim.Adam(generator + encoder, lr=slow, betas=config.betas, fused=True),
        torch.optim.Adam(discriminator, lr=fast, betas=config.betas, fused=True),
        GradientMessages([*encoder, *generator], world),  # the backward pass goes from the image to the style
        GradientMessages(discriminator, world),
    )


def learning_rate(images: int, epoch: int, config: OptimConfig) -> float:
    """The factor on both learning rates after `images` images: 1, then linearly to 0 over the decay epochs.

    With optim.decay_each = "epoch" the factor of an epoch's first image holds for the whole epoch.

    Args:
        epoch: images in an epoch.
    """
    if config.decay_each == "epoch":
        images = images // epoch * epoch
    constant, decay = config.epochs * epoch, config.decay_epochs * epoch
    if images <= constant or not decay:
        return 1.0
    return max(0.0, 1 - (images - constant) / decay)
