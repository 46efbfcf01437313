"""Gradients of one batch: the generator's objective and the discriminator's loss, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_loss,
    objective,
    r1_penalty,
    wide,
)
from trainer.augment import diff_augment
from trainer.data.dataset import Batch
from trainer.grid_loss import grid_loss
from trainer.networks import sampled_style, synthesize
from trainer.precision import choose_precision
from trainer.training import Statistics, Training

Judgement = tuple[list[list[Tensor]], list[list[Tensor]]]
"""The discriminator's outputs for fake and for real images."""


def add_gradients(training: Training, batch: Batch, kl_weight_factor: float) -> Statistics:
    """Add the gradients of both sides on one batch to the parameters' gradients; one fake image serves both sides.

    One judgement serves both sides too: the discriminator's weights stay the same within a step, so a second judgement
    would give the generator the same outputs.

    Args:
        kl_weight_factor: factor on loss.kl, 0..1.
    """
    real = real_images(training, batch)
    drawn, terms = _drawn(training, batch, real, batch.noise)
    fake = drawn.detach().requires_grad_()
    gradient = _compare(training, fake, real, batch.symbols, terms)
    judgement = _judge(training, batch, fake, real, batch.changes)
    gradient += _gradient_at_fake(training, fake, judgement, terms, keep_graph=True)
    _learn(training, judgement, terms)
    del judgement  # and the discriminator's graph, before the generator's is walked
    _send_back(training, drawn, gradient, terms, kl_weight_factor)
    return {name: value.detach() for name, value in terms.items()}


def add_generator_gradients(training: Training, batch: Batch, kl_weight_factor: float) -> Statistics:
    """Add the gradients of generator and encoder on one batch; the discriminator's stay as they are."""
    real = real_images(training, batch)
    drawn, terms = _drawn(training, batch, real, batch.noise)
    fake = drawn.detach().requires_grad_()
    gradient = _compare(training, fake, real, batch.symbols, terms)
    judgement = _judge(training, batch, fake, real, batch.changes, learning=False)
    gradient += _gradient_at_fake(training, fake, judgement, terms, keep_graph=False)
    del judgement
    _send_back(training, drawn, gradient, terms, kl_weight_factor)
    return {name: value.detach() for name, value in terms.items()}


def add_discriminator_gradients(training: Training, batch: Batch) -> Statistics:
    """Add the discriminator's gradients on one batch, whose fake images are drawn anew.

    Generator and encoder stay in training mode: the drawing updates batch-norm statistics and makes a power iteration.
    """
    real, terms = real_images(training, batch), Statistics()
    with torch.no_grad():
        fake, _ = _drawn(training, batch, real, batch.second_noise)
    _learn(training, _judge(training, batch, fake, real, batch.second_changes), terms)
    return terms


def real_images(training: Training, batch: Batch) -> Tensor:
    """The batch's photos [N, 3, H, W] in -1..1, at the precision of the weights."""
    form = torch.channels_last if training.config.run.channels_last else torch.contiguous_format
    dtype = next(training.networks.generator.parameters()).dtype
    return (batch.images.to(dtype) / 127.5 - 1).contiguous(memory_format=form)


def autocast(training: Training) -> torch.autocast:
    """bfloat16 convs and products where the run's precision is bf16."""
    device = training.processes.device.type
    enabled = choose_precision(training.config.run.precision, device).precision == "bf16"
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def _drawn(training: Training, batch: Batch, real: Tensor, noise: Tensor) -> tuple[Tensor, Statistics]:
    """Fake images [N, 3, H, W], and the KL term where there is an encoder, both with their graphs."""
    config, networks, terms = training.config, training.networks, Statistics()
    with autocast(training):
        style = noise if config.model.style else None
        if networks.encoder is not None:
            mean, log_variance = networks.encoder(real)  # [N, 256] each
            style = sampled_style(mean, log_variance, noise)
            terms |= objective({"kl": kl_loss(mean, log_variance)}, config.loss.weights)[1]
        return synthesize(networks.generator, batch, style, config.networks.form), terms


def _compare(training: Training, fake: Tensor, real: Tensor, symbols: Tensor, terms: Statistics) -> Tensor:
    """Add the losses that compare fake with real [N, 3, H, W] to `terms`; returns their gradient at fake."""
    weights, losses = training.config.loss.weights, {}
    with autocast(training):
        if training.perceptual is not None and weights.perceptual:
            # A view: PyTorch's hooks on modules, such as the FLOP counter's, fail on a leaf.
            losses["perceptual"] = training.perceptual(fake.view_as(fake), real)
        if weights.pixel:
            losses["pixel"] = F.l1_loss(wide(fake), real)
    if weights.grid:  # in float32: a spectrum is a difference of large numbers
        losses["grid"] = grid_loss(wide(fake), wide(real), symbols)
    if not losses:
        return torch.zeros_like(fake)
    total, found = objective(losses, weights)
    terms |= {name: value.detach() for name, value in found.items()}
    return torch.autograd.grad(total, fake)[0]


def add_r1_gradients(training: Training, batch: Batch) -> Statistics:
    """Add the gradients of the lazy R1 penalty on one batch's photos to the discriminator's, in float32.

    loss.r1 x loss.r1_every x R1: the penalty is taken every loss.r1_every steps (Karras et al., CVPR 2020, arXiv
    1912.04958, appendix B). No power iteration is made. Returns loss.r1 x R1.
    """
    discriminator, config = training.networks.discriminator, training.config
    real = real_images(training, batch)
    if config.loss.diffaugment != "none":
        real = diff_augment(real, batch.changes, config.loss.diffaugment)
    real.requires_grad_()
    discriminator.eval()
    labels = discriminator.label_features(batch.symbols, batch.patches, config.model)
    penalty = config.loss.r1 * r1_penalty(discriminator.judge(labels, real), real)
    discriminator.train()
    parameters = list(discriminator.parameters())
    torch.autograd.backward(penalty * (config.loss.r1_every / config.optim.accumulate), inputs=parameters)
    return {"r1": penalty.detach()}


def _judge(
    training: Training, batch: Batch, fake: Tensor, real: Tensor, changes: Tensor, learning: bool = True
) -> Judgement:
    """The discriminator's outputs for fake and real [N, 3, H, W], after one power iteration for both.

    Args:
        changes: random numbers of `diff_augment`, which fake and real share.
        learning: whether the discriminator's loss will be differentiated; else the real images need no graph.
    """
    discriminator, policy = training.networks.discriminator, training.config.loss.diffaugment
    if policy != "none":
        fake, real = (diff_augment(images, changes, policy) for images in (fake, real))
    with autocast(training):
        labels = discriminator.label_features(batch.symbols, batch.patches, training.config.model)
        fakes = discriminator.judge(labels, fake)
        discriminator.eval()  # keeps the spectral norm of the fakes
        with torch.set_grad_enabled(learning):
            reals = discriminator.judge(labels, real)
        discriminator.train()
    return fakes, reals


def _gradient_at_fake(
    training: Training, fake: Tensor, judgement: Judgement, terms: Statistics, keep_graph: bool
) -> Tensor:
    """Add the generator's losses of a judgement to `terms`; returns their gradient at fake [N, 3, H, W].

    Args:
        keep_graph: whether the judgement will be differentiated once more, for the discriminator.
    """
    (fakes, reals), config = judgement, training.config
    with autocast(training):
        losses = {"gan": generator_loss(fakes, config.loss.gan)}
        if config.loss.feature_matching:
            losses["feature_matching"] = feature_matching_loss(reals, fakes)
        total, found = objective(losses, config.loss.weights)
    terms |= {name: value.detach() for name, value in found.items()}
    return torch.autograd.grad(total, fake, retain_graph=keep_graph)[0]


def _learn(training: Training, judgement: Judgement, terms: Statistics) -> None:
    """Add the discriminator's gradients, and its loss and mean scores to `terms`."""
    (fakes, reals), config = judgement, training.config
    with autocast(training):
        loss = discriminator_loss(reals, fakes, config.loss.gan)
    parameters = list(training.networks.discriminator.parameters())
    torch.autograd.backward(loss / config.optim.accumulate, inputs=parameters)
    terms |= {"discriminator": loss.detach(), "score_real": _mean_score(reals), "score_fake": _mean_score(fakes)}


def _send_back(training: Training, drawn: Tensor, gradient: Tensor, terms: Statistics, kl_weight_factor: float) -> None:
    """Send the objective's gradient at the fake images, and the KL term, back through generator and encoder.

    The KL divergence is a sum over one pass of one process; the passes and processes of a step are averaged.
    """
    accumulate = training.config.optim.accumulate
    tensors, gradients = [drawn], [gradient.to(drawn.dtype) / accumulate]
    if "kl" in terms:
        tensors.append(terms["kl"])
        gradients.append(torch.full_like(terms["kl"], kl_weight_factor / accumulate))
    torch.autograd.backward(tensors, gradients)


def _mean_score(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([wide(scale[-1].detach()).mean() for scale in outputs]).mean()
