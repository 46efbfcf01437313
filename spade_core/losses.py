"""The losses of the paper (SPADE paper, appendix A; pix2pixHD, equations 2 to 5), each a plain function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from spade_core.mean_difference import mean_difference

GanMode = Literal["hinge", "least-squares", "original", "wasserstein"]
GAN_MODES: tuple[GanMode, ...] = get_args(GanMode)
Outputs = Sequence[Sequence[Tensor]]
"""What a `Discriminator` returns: for each scale the outputs of all layers, the scores last."""
Difference = Callable[[Tensor, Tensor], Tensor]
"""Mean |a - b|, with a gradient for a."""


class LossError(ValueError):
    """A loss that cannot be made; the message holds the value and the fix."""


def discriminator_loss(real: Outputs, fake: Outputs, mode: GanMode = "hinge") -> Tensor:
    """What the discriminator minimises: the loss of real plus that of fake scores, means over patches, then scales.

    With s the scores: hinge max(0, 1 - s_real) + max(0, 1 + s_fake); least-squares (s_real - 1)^2 + s_fake^2;
    original -log sigmoid(s_real) - log(1 - sigmoid(s_fake)); wasserstein -s_real + s_fake. A float32 scalar.
    Only the last output of each scale is read. `fake` must be of a detached image.
    """
    terms = [_of_real(r[-1].float(), mode) + _of_fake(f[-1].float(), mode) for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def generator_loss(fake: Outputs, mode: GanMode = "hinge") -> Tensor:
    """What the generator minimises: hinge and wasserstein -s_fake, the others as if fake were real. Means as above."""
    if mode in ("hinge", "wasserstein"):
        terms = [-f[-1].float().mean() for f in fake]
    else:
        terms = [_of_real(f[-1].float(), mode) for f in fake]
    return torch.stack(terms).mean()


def _of_real(scores: Tensor, mode: GanMode) -> Tensor:
    match mode:
        case "hinge":
            return F.relu(1 - scores).mean()
        case "least-squares":
            return (scores - 1).square().mean()
        case "original":
            return F.softplus(-scores).mean()
        case "wasserstein":
            return -scores.mean()
        case _:
            raise LossError(f"[loss] expected a GAN mode out of {', '.join(GAN_MODES)} but got {mode!r}")


def _of_fake(scores: Tensor, mode: GanMode) -> Tensor:
    match mode:
        case "hinge":
            return F.relu(1 + scores).mean()
        case "least-squares":
            return scores.square().mean()
        case "original":
            return F.softplus(scores).mean()
        case "wasserstein":
            return scores.mean()
        case _:
            raise LossError(f"[loss] expected a GAN mode out of {', '.join(GAN_MODES)} but got {mode!r}")


def feature_matching_loss(real: Outputs, fake: Outputs, difference: Difference = mean_difference) -> Tensor:
    """Mean |fake - real| of every layer but the last, summed over layers, mean over scales; real is detached.

    The paper's lambda / num_D is in the mean over scales, so loss.feature_matching alone goes before it. A float32
    scalar.
    """
    terms = [
        torch.stack([difference(f, r.detach()) for r, f in zip(rs[:-1], fs[:-1], strict=True)]).sum()
        for rs, fs in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1): -1/2 sum(1 + logvar - mean^2 - exp(logvar)).

    mean and log_variance [N, 256]; the sum runs over the batch too, as the reference has it. A float32 scalar.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()


def split_fake_real(outputs: Outputs) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Outputs of a batch [fake.., real..] of 2N -> those of the fake N and of the real N."""
    fake = [[layer[: len(layer) // 2] for layer in scale] for scale in outputs]
    real = [[layer[len(layer) // 2 :] for layer in scale] for scale in outputs]
    return fake, real
