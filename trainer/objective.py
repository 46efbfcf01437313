"""Gradients of one batch: the generator's objective and the discriminator's loss, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.losses import discriminator_loss, feature_matching_loss, generator_loss, kl_loss, objective
from trainer.data.dataset import Batch
from trainer.networks import sampled_style, synthesize
from trainer.training import Statistics, Training


def add_gradients(training: Training, batch: Batch, kl_weight_factor: float) -> Statistics:
    """Add the gradients of both sides on one batch to those that the parameters hold; one fake image serves both.

    The objective's gradient at the fake image is computed first, in two parts, and then sent back through the
    generator once. Each part's graph is freed before the next one is built.

    Args:
        kl_weight_factor: factor on loss.kl, 0..1.
    """
    config, networks, processes = training.config, training.networks, training.processes
    real = real_images(batch, config.run.channels_last)
    terms: Statistics = {}
    with autocast(training):
        style = batch.noise if config.model.style else None
        if networks.encoder is not None:
            mean, log_variance = networks.encoder(real)  # [N, 256] each
            style = sampled_style(mean, log_variance, batch.noise)
            terms |= objective({"kl": kl_loss(mean, log_variance)}, config.loss.weights)[1]
        drawn = synthesize(networks.generator, batch, style, config.networks.form)  # [N, 3, H, W]
        fake = drawn.detach().requires_grad_()
    gradient = _compare(training, fake, real, terms)
    gradient += _judge(training, batch, fake, real, terms)
    tensors, gradients = [drawn], [gradient.to(drawn.dtype) / config.optim.accumulate]
    if "kl" in terms:
        # The KL divergence is a sum over the whole batch, the others are means: gradients are averaged over processes.
        tensors.append(terms["kl"])
        gradients.append(torch.full_like(terms["kl"], kl_weight_factor * processes.world))
    torch.autograd.backward(tensors, gradients)
    return {name: value.detach() for name, value in terms.items()}


def real_images(batch: Batch, channels_last: bool) -> Tensor:
    """The batch's photos [N, 3, H, W] in -1..1."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    return (batch.images.float() / 127.5 - 1).contiguous(memory_format=form)


def autocast(training: Training) -> torch.autocast:
    """bfloat16 convs and products where the configuration asks for them."""
    enabled = training.config.run.precision == "bf16"
    return torch.autocast(training.processes.device.type, torch.bfloat16, enabled=enabled)


def _compare(training: Training, fake: Tensor, real: Tensor, terms: Statistics) -> Tensor:
    """Add the losses that compare fake with real [N, 3, H, W] to `terms`; returns their gradient at fake."""
    weights, losses = training.config.loss.weights, {}
    with autocast(training):
        if training.perceptual is not None and weights.perceptual:
            # A view: PyTorch's hooks on modules, such as the FLOP counter's, fail on a leaf.
            losses["perceptual"] = training.perceptual(fake.view_as(fake), real)
        if weights.pixel:
            losses["pixel"] = F.l1_loss(fake.float(), real)
    if not losses:
        return torch.zeros_like(fake)
    total, found = objective(losses, weights)
    terms |= {name: value.detach() for name, value in found.items()}
    return torch.autograd.grad(total, fake)[0]


def _judge(training: Training, batch: Batch, fake: Tensor, real: Tensor, terms: Statistics) -> Tensor:
    """Add the discriminator's gradients and loss on fake and real [N, 3, H, W]; returns the generator's at fake.

    One judgement serves both sides: the discriminator's weights stay the same within a step, so a second judgement
    would give the generator the same outputs.
    """
    config, discriminator = training.config, training.networks.discriminator
    with autocast(training):
        labels = discriminator.label_features(batch.symbols, batch.patches, config.model)
        fakes = discriminator.judge(labels, fake)
        discriminator.eval()  # the power iteration was made
        reals = discriminator.judge(labels, real)
        discriminator.train()
        losses = {"gan": generator_loss(fakes, config.loss.gan)}
        if config.loss.feature_matching:
            losses["feature_matching"] = feature_matching_loss(reals, fakes)
        against, found = objective(losses, config.loss.weights)
        loss = discriminator_loss(reals, fakes, config.loss.gan)
    (gradient,) = torch.autograd.grad(against, fake, retain_graph=True)
    torch.autograd.backward(loss / config.optim.accumulate, inputs=list(discriminator.parameters()))
    found |= {"discriminator": loss, "score_real": _mean_score(reals), "score_fake": _mean_score(fakes)}
    terms |= {name: value.detach() for name, value in found.items()}  # detached: the graph's memory goes
    return gradient


def _mean_score(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([scale[-1].detach().float().mean() for scale in outputs]).mean()
