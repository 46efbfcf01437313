"""One training step: one fake image, judged once, trains both sides.

The paper draws a second fake for the discriminator, and judges fake and real once for each side; here the generator's
fake, and what the discriminator says of it and of the real image, serve both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.losses import discriminator_loss, feature_matching_loss, generator_loss, kl_loss
from spade_core.models.discriminator import Discriminator
from trainer.config import OptimConfig, TrainConfig
from trainer.data.dataset import Batch
from trainer.networks import Networks, synthesize, update_average
from trainer.perceptual import PerceptualLoss
from trainer.processes import GradientMessages, Processes

Statistics = dict[str, Tensor]  # float32 scalars, detached


@dataclass
class Optimisers:
    """Adam of generator and encoder, and of the discriminator; and how the processes share the gradients of all."""

    generator: torch.optim.Adam
    discriminator: torch.optim.Adam
    messages: GradientMessages

    def items(self) -> Sequence[tuple[str, torch.optim.Adam]]:
        return ("generator", self.generator), ("discriminator", self.discriminator)


def optimisers(networks: Networks, config: OptimConfig, world: int = 1) -> Optimisers:
    """Adam for both sides; with TTUR the generator at lr / 2 and the discriminator at 2 lr (Heusel et al., 2017)."""
    betas = (config.beta1, config.beta2)
    slow, fast = (config.lr / 2, config.lr * 2) if config.ttur else (config.lr, config.lr)
    parameters = list(networks.generator.parameters())
    if networks.encoder is not None:
        parameters += networks.encoder.parameters()
    # Reversed, as they become ready: the discriminator's, then from the image back to the style.
    first = [] if networks.encoder is None else list(networks.encoder.parameters())
    order = [*first, *networks.generator.parameters(), *networks.discriminator.parameters()]
    return Optimisers(
        torch.optim.Adam(parameters, lr=slow, betas=betas, fused=True),
        torch.optim.Adam(networks.discriminator.parameters(), lr=fast, betas=betas, fused=True),
        GradientMessages(order, world),
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
    images: int,
    factor: float,
) -> Statistics:
    """Train on `batches` (one, or as many as are accumulated) and move the averages. Returns means of the losses.

    Args:
        step: steps taken before, for the start of the average.
        images: seen before, for that of loss.kl.
        factor: on the learning rates, from `learning_rate`.
    """
    rates = [(side, group, group["lr"]) for _, side in optimiser.items() for group in side.param_groups]
    kl_weight_factor = min(1.0, images / config.loss.kl_warmup) if config.loss.kl_warmup else 1.0
    sums: Statistics = {}
    for i, batch in enumerate(batches):
        with optimiser.messages.sent() if i == len(batches) - 1 else nullcontext():
            statistics = add_gradients(networks, batch, perceptual, config, processes, kl_weight_factor)
        for name, value in statistics.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value / len(batches)
    for _, group, rate in rates:
        group["lr"] = rate * factor
    for _, side in optimiser.items():
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
    kl_weight_factor: float,
) -> Statistics:
    """Forward and backward of both sides on one batch; the gradients add to those there are.

    `kl_weight_factor`, 0..1, multiplies loss.kl.
    """
    form = torch.channels_last if config.run.channels_last else torch.contiguous_format
    real = (batch.images.float() / 127.5 - 1).contiguous(memory_format=form)  # [N, 3, H, W], -1..1
    half = torch.autocast(processes.device.type, torch.bfloat16, enabled=config.run.precision == "bf16")
    terms: Statistics = {}
    with half:
        style = batch.noise if config.model.style else None
        if networks.encoder is not None:
            mean, log_variance = networks.encoder(real)  # [N, 256] each
            style = mean.float() + torch.exp(0.5 * log_variance.float()) * batch.noise
            terms["kl"] = config.loss.kl * kl_loss(mean, log_variance)
        drawn = synthesize(networks.generator, batch, style, config.networks.form)  # [N, 3, H, W]
        fake = drawn.detach().requires_grad_()
    gradient = _compare(fake, real, perceptual, config, half, terms)
    gradient += _judge(networks.discriminator, batch, fake, real, config, half, terms)
    tensors, gradients = [drawn], [gradient.to(drawn.dtype) / config.optim.accumulate]
    if "kl" in terms:
        # The KL divergence is a sum over the whole batch, the others are means: gradients are averaged over processes.
        tensors.append(terms["kl"])
        gradients.append(torch.full_like(terms["kl"], kl_weight_factor * processes.world))
    torch.autograd.backward(tensors, gradients)
    return {name: value.detach() for name, value in terms.items()}


def _compare(
    fake: Tensor, real: Tensor, perceptual: PerceptualLoss | None, config: TrainConfig, half: torch.autocast,
    terms: Statistics,
) -> Tensor:  # fmt: skip
    """Add the losses that compare fake with real [N, 3, H, W] to `terms`; returns their gradient at fake."""
    found: Statistics = {}
    with half:
        if perceptual is not None and config.loss.perceptual:
            # A view: PyTorch's hooks on modules, such as its FLOP counter's, fail on a leaf.
            found["perceptual"] = config.loss.perceptual * perceptual(fake.view_as(fake), real)
        if config.loss.pixel:
            found["pixel"] = config.loss.pixel * F.l1_loss(fake.float(), real)
    terms |= {name: value.detach() for name, value in found.items()}
    if not found:
        return torch.zeros_like(fake)
    return torch.autograd.grad(torch.stack(list(found.values())).sum(), fake)[0]


def _judge(
    discriminator: Discriminator, batch: Batch, fake: Tensor, real: Tensor, config: TrainConfig, half: torch.autocast,
    terms: Statistics,
) -> Tensor:  # fmt: skip
    """Train the discriminator on fake and real [N, 3, H, W]; returns the gradient at fake of what it says of it.

    One pass of it serves both sides: its weights stand still in a step, so the generator would see the same outputs.
    """
    with half:
        labels = discriminator.label_features(batch.symbols, batch.patches, config.model)
        fakes = discriminator.judge(labels, fake)
        discriminator.eval()  # the power iteration was made
        reals = discriminator.judge(labels, real)
        discriminator.train()
        terms["gan"] = against = generator_loss(fakes, config.loss.gan)
        if config.loss.feature_matching:
            terms["feature_matching"] = config.loss.feature_matching * feature_matching_loss(reals, fakes)
            against = against + terms["feature_matching"]
        loss = discriminator_loss(reals, fakes, config.loss.gan)
    (gradient,) = torch.autograd.grad(against, fake, retain_graph=True)
    torch.autograd.backward(loss / config.optim.accumulate, inputs=list(discriminator.parameters()))
    terms["discriminator"] = loss
    terms |= {"score_real": _score(reals), "score_fake": _score(fakes)}
    for name in ("gan", "feature_matching", "discriminator"):  # no graph, and no memory, of theirs stays
        if name in terms:
            terms[name] = terms[name].detach()
    return gradient


def _score(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([scale[-1].detach().float().mean() for scale in outputs]).mean()
