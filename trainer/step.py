"""One training step: the generator against the discriminator, then the discriminator on the same fakes.

The paper draws a second fake for the discriminator; using the generator's saves one forward pass of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core.dense import one_hot
from trainer.config import OptimConfig, TrainConfig
from trainer.dataset import Batch
from trainer.losses import (
    PerceptualLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_loss,
    split_fake_real,
)
from trainer.networks import Networks, synthesize, update_average
from trainer.processes import Processes, average_gradients

Statistics = dict[str, Tensor]  # float32 scalars, detached


@dataclass
class Optimisers:
    """Adam of generator and encoder, and of the discriminator."""

    generator: torch.optim.Adam
    discriminator: torch.optim.Adam

    def items(self) -> Sequence[tuple[str, torch.optim.Adam]]:
        return ("generator", self.generator), ("discriminator", self.discriminator)


def optimisers(networks: Networks, config: OptimConfig) -> Optimisers:
    """Adam for both sides; with TTUR the generator at lr / 2 and the discriminator at 2 lr (Heusel et al., 2017)."""
    betas = (config.beta1, config.beta2)
    slow, fast = (config.lr / 2, config.lr * 2) if config.ttur else (config.lr, config.lr)
    parameters = list(networks.generator.parameters())
    if networks.encoder is not None:
        parameters += networks.encoder.parameters()
    return Optimisers(
        torch.optim.Adam(parameters, lr=slow, betas=betas, fused=True),
        torch.optim.Adam(networks.discriminator.parameters(), lr=fast, betas=betas, fused=True),
    )


def learning_rate(images: int, epoch: int, config: OptimConfig) -> float:
    """The factor on both learning rates once `images` were seen: 1, then linearly to 0 over the decay epochs."""
    constant, decay = config.epochs * epoch, config.decay_epochs * epoch
    if images <= constant or not decay:
        return 1.0
    return max(0.0, 1 - (images - constant) / decay)


def train_step(
    networks: Networks,
    optimiser: Optimisers,
    batches: Sequence[Batch],
    perceptual: PerceptualLoss | None,
    config: TrainConfig,
    processes: Processes,
    step: int,
    factor: float,
) -> Statistics:
    """Train on `batches` (one, or as many as are accumulated) and move the averages. Returns means of the losses.

    Args:
        step: steps taken before, for the starts of the average and of loss.kl.
        factor: on the learning rates, from `learning_rate`.
    """
    rates = [(side, group, group["lr"]) for _, side in optimiser.items() for group in side.param_groups]
    images = step * config.optim.batch * config.optim.accumulate * processes.world
    warmth = min(1.0, images / config.loss.kl_warmup) if config.loss.kl_warmup else 1.0
    sums: Statistics = {}
    for batch in batches:
        for name, value in add_gradients(networks, batch, perceptual, config, processes, warmth).items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value / len(batches)
    for _, group, rate in rates:
        group["lr"] = rate * factor
    for _, side in optimiser.items():
        average_gradients((p for group in side.param_groups for p in group["params"]), processes.world)
        side.step()
        side.zero_grad(set_to_none=True)
    for _, group, rate in rates:
        group["lr"] = rate
    update_average(networks, config.optim.ema, step)
    return sums


def add_gradients(
    networks: Networks,
    batch: Batch,
    perceptual: PerceptualLoss | None,
    config: TrainConfig,
    processes: Processes,
    warmth: float,
) -> Statistics:
    """Forward and backward of both sides on one batch; the gradients add to those there are. `warmth` is loss.kl's."""
    form = torch.channels_last if config.run.channels_last else torch.contiguous_format
    real = (batch.images.float() / 127.5 - 1).contiguous(memory_format=form)  # [N, 3, H, W], -1..1
    half = torch.autocast(processes.device.type, torch.bfloat16, enabled=config.run.precision == "bf16")
    segmap = one_hot(batch.symbols, config.model, torch.float32)  # [N, S, H, W]
    with half:
        fake, terms = _generator_losses(networks, batch, segmap, real, perceptual, config)
    # The KL divergence is a sum over the whole batch, the others are means: gradients are averaged over processes.
    total = sum(value for name, value in terms.items() if name != "kl") / config.optim.accumulate
    total = total + terms["kl"] * (warmth * processes.world) if "kl" in terms else total
    assert isinstance(total, Tensor)
    torch.autograd.backward(total)
    with half:
        outputs = networks.discriminator(torch.cat([_seen(segmap, fake.detach()), _seen(segmap, real)]))
        fakes, reals = split_fake_real(outputs)
        loss = discriminator_loss(reals, fakes, config.loss.gan)
    torch.autograd.backward(loss / config.optim.accumulate)
    return {name: value.detach() for name, value in terms.items()} | {
        "discriminator": loss.detach(),
        "score_real": _score(reals),
        "score_fake": _score(fakes),
    }


def _generator_losses(
    networks: Networks,
    batch: Batch,
    segmap: Tensor,
    real: Tensor,
    perceptual: PerceptualLoss | None,
    config: TrainConfig,
) -> tuple[Tensor, Statistics]:
    weights = config.loss
    terms: Statistics = {}
    style = batch.noise if config.model.style else None
    if networks.encoder is not None:
        mean, log_variance = networks.encoder(real)  # [N, 256] each
        style = mean.float() + torch.exp(0.5 * log_variance.float()) * batch.noise
        terms["kl"] = weights.kl * kl_loss(mean, log_variance)
    fake = synthesize(networks.generator, batch, style, config.networks.form)  # [N, 3, H, W]
    with _frozen(networks.discriminator):
        fakes = networks.discriminator(_seen(segmap, fake))
        terms["gan"] = generator_loss(fakes, weights.gan)
        if weights.feature_matching:
            with torch.no_grad():
                reals = networks.discriminator(_seen(segmap, real))
            terms["feature_matching"] = weights.feature_matching * feature_matching_loss(reals, fakes)
    if perceptual is not None and weights.perceptual:
        terms["perceptual"] = weights.perceptual * perceptual(fake, real)
    if weights.pixel:
        terms["pixel"] = weights.pixel * F.l1_loss(fake.float(), real)
    return fake, terms


def _seen(segmap: Tensor, image: Tensor) -> Tensor:
    """What the discriminator reads [N, S + 3, H, W]."""
    return torch.cat([segmap, image.to(segmap.dtype)], dim=1)


def _score(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([scale[-1].detach().float().mean() for scale in outputs]).mean()


class _frozen:
    """While the generator trains, its judge takes no gradient and no power iteration."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.module.requires_grad_(False)
        self.module.eval()

    def __exit__(self, *error: object) -> None:
        self.module.requires_grad_(True)
        self.module.train()
