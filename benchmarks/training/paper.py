"""A training step as the paper's code does it: what `benchmarks.training` compares the trainer with.

One-hot maps everywhere, a second fake for the discriminator, and fake and real judged once for each side. Losses,
optimisers, spectral norm and the average are the trainer's; differences of features are PyTorch's `l1_loss`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.losses import discriminator_loss, feature_matching_loss, generator_loss, split_fake_real
from spade_core.models.one_hot import one_hot
from trainer.config import TrainConfig
from trainer.data.dataset import Batch
from trainer.networks import Networks, synthesize, update_average
from trainer.perceptual import PerceptualLoss
from trainer.step import Optimisers


def paper_step(
    networks: Networks, sides: Optimisers, batch: Batch, perceptual: PerceptualLoss | None, config: TrainConfig
) -> None:
    """One step on `batch`, of a generator without a style encoder."""
    form = torch.channels_last if config.run.channels_last else torch.contiguous_format
    real = (batch.images.float() / 127.5 - 1).contiguous(memory_format=form)  # [N, 3, H, W], -1..1
    half = torch.autocast(real.device.type, torch.bfloat16, enabled=config.run.precision == "bf16")
    segmap = one_hot(batch.symbols, config.model, torch.float32)  # [N, S, H, W]
    style = batch.noise if config.model.style else None
    discriminator = networks.discriminator

    def judge(image: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Outputs of fake and real, together in one batch [2N, S + 3, H, W]."""
        seen = torch.cat([torch.cat([segmap, one.to(segmap.dtype)], dim=1) for one in (image, real)])
        return split_fake_real(discriminator(seen.contiguous(memory_format=form)))

    discriminator.requires_grad_(False)
    with half:
        fake = synthesize(networks.generator, batch, style, "dense")
        fakes, reals = judge(fake)
        loss = generator_loss(fakes) + config.loss.feature_matching * feature_matching_loss(reals, fakes, F.l1_loss)
        if perceptual is not None:
            loss = loss + config.loss.perceptual * perceptual(fake, real, F.l1_loss)
    torch.autograd.backward(loss)
    sides.generator.step()
    sides.generator.zero_grad(set_to_none=True)
    del fake, fakes, reals, loss
    discriminator.requires_grad_(True)
    with half:
        with torch.no_grad():
            fake = synthesize(networks.generator, batch, style, "dense")
        fakes, reals = judge(fake)
        loss = discriminator_loss(reals, fakes)
    torch.autograd.backward(loss)
    sides.discriminator.step()
    sides.discriminator.zero_grad(set_to_none=True)
    update_average(networks, config.optim.ema, step=0)
