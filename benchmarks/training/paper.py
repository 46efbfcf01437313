"""A training step as the paper does it, for `benchmarks.training` to compare the trainer with.

One-hot maps everywhere; a second fake for the discriminator; fake and real judged in one batch, once for each side.
Losses, optimisers, spectral norm and the average come from the trainer; features are compared by PyTorch's `l1_loss`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.losses import discriminator_loss, feature_matching_loss, generator_loss, objective, split_fake_real
from spade_core.models.one_hot import one_hot
from trainer.data.dataset import Batch
from trainer.networks import synthesize, update_average
from trainer.objective import autocast, real_images
from trainer.training import Training


def paper_step(training: Training, batch: Batch) -> None:
    """One step on `batch`, of a generator without a style encoder."""
    networks, sides, config = training.networks, training.optimisers, training.config
    real = real_images(training, batch)  # [N, 3, H, W]
    segmap = one_hot(batch.symbols, config.model, torch.float32)  # [N, S, H, W]
    style = batch.noise if config.model.style else None
    discriminator = networks.discriminator

    def judge(image: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Outputs for fake and real, judged together in one batch [2N, S + 3, H, W]."""
        seen = torch.cat([torch.cat([segmap, one.to(segmap.dtype)], dim=1) for one in (image, real)])
        form = torch.channels_last if config.run.channels_last else torch.contiguous_format
        return split_fake_real(discriminator(seen.contiguous(memory_format=form)))

    discriminator.requires_grad_(False)
    with autocast(training):
        fake = synthesize(networks.generator, batch, style, "dense")
        fakes, reals = judge(fake)
        losses = {"gan": generator_loss(fakes), "feature_matching": feature_matching_loss(reals, fakes, F.l1_loss)}
        if training.perceptual is not None:
            losses["perceptual"] = training.perceptual(fake, real, F.l1_loss)
        loss, _ = objective(losses, config.loss.weights)
    torch.autograd.backward(loss)
    sides.generator.step()
    sides.generator.zero_grad(set_to_none=True)
    del fake, fakes, reals, losses, loss
    discriminator.requires_grad_(True)
    with autocast(training):
        with torch.no_grad():
            fake = synthesize(networks.generator, batch, style, "dense")
        fakes, reals = judge(fake)
        loss = discriminator_loss(reals, fakes)
    torch.autograd.backward(loss)
    sides.discriminator.step()
    sides.discriminator.zero_grad(set_to_none=True)
    update_average(networks, config.optim.ema, step=0)
