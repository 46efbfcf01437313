"""The paper's losses: one function an equation, and `objective`, which adds them up.

The generator minimises L = L_GAN + lambda_FM L_FM + lambda_P L_P + lambda_KL L_KL, the discriminator L_D.

Sources: "SPADE" is arXiv 1903.07291, whose appendix A takes over the objective of "pix2pixHD", arXiv 1711.11585, with
the hinge in place of least squares. docs/paper.md lists where each equation is computed and tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
"""Mean |a - b| of two maps, with a gradient for a."""


class LossError(ValueError):
    """A loss that cannot be computed; the message holds the value and the fix."""


@dataclass(frozen=True)
class LossWeights:
    """The lambdas of `objective`; the defaults are the paper's.

    Attributes:
        feature_matching: lambda_FM, 10 (pix2pixHD, section 4). `feature_matching_loss` divides by the scales, so each
            scale weighs 10 / num_D.
        perceptual: lambda_P, 10 (pix2pixHD, section 4).
        kl: lambda_KL, 0.05 (SPADE, appendix A).
        pixel: lambda_1, 0. The paper has no pixel loss; a training without VGG19 needs one.
        grid: lambda_G, 0. Not in the paper; against the grid that upsampling leaves on plain surfaces.
    """

    feature_matching: float = 10.0
    perceptual: float = 10.0
    kl: float = 0.05
    pixel: float = 0.0
    grid: float = 0.0


PAPER_WEIGHTS = LossWeights()


def objective(losses: Mapping[str, Tensor], weights: LossWeights = PAPER_WEIGHTS) -> tuple[Tensor, dict[str, Tensor]]:
    """The generator's objective: L = L_GAN + lambda_FM L_FM + lambda_P L_P + lambda_KL L_KL + lambda_1 L_1
    + lambda_G L_G.

    pix2pixHD, equation 5, with the perceptual loss of its section 4 and the KL divergence of SPADE, appendix A. L is a
    sum, so a caller may pass a part of the losses, and add the gradients of the parts.

    Args:
        losses: scalars by name: gan, feature_matching, perceptual, kl, pixel, grid.

    Returns L and its weighted terms by name.
    """
    factors = {
        "gan": 1.0,
        "feature_matching": weights.feature_matching,
        "perceptual": weights.perceptual,
        "kl": weights.kl,
        "pixel": weights.pixel,
        "grid": weights.grid,
    }
    terms = {name: factors[name] * loss for name, loss in losses.items()}
    return torch.stack(list(terms.values())).sum(), terms


def generator_loss(fake: Outputs, mode: GanMode = "hinge") -> Tensor:
    """L_GAN of the generator, a mean over patches, then over scales. s is a score of a fake image.

    hinge and wasserstein: -s (SPADE, appendix A; Lim and Ye, arXiv 1705.02894; Arjovsky et al., arXiv 1701.07875).
    least-squares: (s - 1)^2 (Mao et al., arXiv 1611.04076, equation 9).
    original: -log sigmoid(s) (Goodfellow et al., arXiv 1406.2661, section 3).
    Returns a scalar of float32, or wider for wider scores.
    """
    if mode in ("hinge", "wasserstein"):
        terms = [-wide(f[-1]).mean() for f in fake]
    else:
        terms = [_of_real(wide(f[-1]), mode) for f in fake]
    return torch.stack(terms).mean()


def discriminator_loss(real: Outputs, fake: Outputs, mode: GanMode = "hinge") -> Tensor:
    """L_D, a mean over patches, then over scales. r and s are scores of real and fake images.

    hinge: max(0, 1 - r) + max(0, 1 + s) (SPADE, appendix A; Lim and Ye, arXiv 1705.02894).
    least-squares: (r - 1)^2 + s^2 (Mao et al., arXiv 1611.04076, equation 9).
    original: -log sigmoid(r) - log(1 - sigmoid(s)) (pix2pixHD, equation 2).
    wasserstein: s - r (Arjovsky et al., arXiv 1701.07875, equation 3).
    The sum over scales of pix2pixHD, equation 3, is a mean here. `fake` must come from a detached image. Only the last
    output of each scale is read. Returns a scalar of float32, or wider for wider scores.
    """
    terms = [_of_real(wide(r[-1]), mode) + _of_fake(wide(f[-1]), mode) for r, f in zip(real, fake, strict=True)]
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
            raise _unknown(mode)


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
            raise _unknown(mode)


def _unknown(mode: str) -> LossError:
    return LossError(f"[loss] expected a GAN mode out of {', '.join(GAN_MODES)} but got {mode!r}")


def feature_matching_loss(real: Outputs, fake: Outputs, difference: Difference = mean_difference) -> Tensor:
    """L_FM = 1 / num_D sum_k sum_i mean |D_k^i(fake) - D_k^i(real)| over all layers i but the last.

    pix2pixHD, equations 4 and 5; num_D is the number of scales k. The gradient reaches `fake` only. Returns a float32
    scalar.
    """
    terms = [
        torch.stack([difference(f, r.detach()) for r, f in zip(rs[:-1], fs[:-1], strict=True)]).sum()
        for rs, fs in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def perceptual_loss(
    real: Sequence[Tensor], fake: Sequence[Tensor], weights: Sequence[float], difference: Difference = mean_difference
) -> Tensor:
    """L_P = sum_i w_i mean |F_i(fake) - F_i(real)| over the feature maps F_i of a network that stays as it is.

    pix2pixHD, section 4 (Johnson et al., ECCV 2016); `trainer.perceptual` has the paper's network and w_i. Returns a
    float32 scalar.
    """
    return torch.stack([w * difference(f, r) for w, f, r in zip(weights, fake, real, strict=True)]).sum()


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """L_KL = D_KL(N(mean, exp(log_variance)) || N(0, 1)) = -1/2 sum(1 + log_variance - mean^2 - exp(log_variance)).

    SPADE, appendix A (Kingma and Welling, arXiv 1312.6114, appendix B). mean and log_variance are [N, 256]; the sum
    runs over the batch too. Returns a scalar of float32, or wider for wider inputs.
    """
    mean, log_variance = wide(mean), wide(log_variance)
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()


def r1_penalty(scores: Outputs, image: Tensor) -> Tensor:
    """R_1 = 1/2 mean_n |d D(x_n) / d x_n|^2 at real images x (Mescheder et al., ICML 2018, arXiv 1801.04406, eq. 9).

    D(x_n) is the mean score over patches, then over scales, as in `discriminator_loss`; gamma is the caller's. The
    penalty has a gradient for the discriminator's weights: it is differentiated a second time.

    Args:
        scores: outputs for `image`, with their graph; only the last output of each scale is read.
        image: x [N, 3, H, W], a leaf that requires a gradient.
    """
    total = torch.stack([wide(scale[-1]).mean((1, 2, 3)) for scale in scores]).mean(0).sum()  # sum_n D(x_n)
    (slope,) = torch.autograd.grad(total, image, create_graph=True)
    return 0.5 * wide(slope).square().sum((1, 2, 3)).mean()


def split_fake_real(outputs: Outputs) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Outputs for a batch of N fake, then N real images -> the outputs for the fake and for the real images."""
    fake = [[layer[: len(layer) // 2] for layer in scale] for scale in outputs]
    real = [[layer[len(layer) // 2 :] for layer in scale] for scale in outputs]
    return fake, real


def wide(x: Tensor) -> Tensor:
    """x in float32, or as it is where x is wider: sums of bfloat16 numbers lose too much."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
