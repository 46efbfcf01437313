"""The losses of the paper (SPADE paper, appendix A; pix2pixHD, equations 2 to 5), each a plain function of tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spade_core.convert import read_state_dict
from trainer.judges import feature_maps, load_torchscript
from trainer.l1 import mean_difference
from trainer.segmentation import FEATURES, load_segmentation

GanMode = Literal["hinge", "least-squares", "original", "wasserstein"]
GAN_MODES: tuple[GanMode, ...] = get_args(GanMode)

Outputs = Sequence[Sequence[Tensor]]
"""What a `Discriminator` returns: for each scale the outputs of all layers, the scores last."""

Difference = Callable[[Tensor, Tensor], Tensor]
"""Mean |a - b|, with a gradient for a."""

_log = logging.getLogger(__name__)


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


# ---- The perceptual loss ----

# VGG19 of torchvision, `features`: convs 3x3 by their index there, with output channels; "pool" halves the size.
_VGG19: tuple[tuple[int, int] | Literal["pool"], ...] = (
    (0, 64), (2, 64), "pool", (5, 128), (7, 128), "pool", (10, 256), (12, 256), (14, 256), (16, 256), "pool",
    (19, 512), (21, 512), (23, 512), (25, 512), "pool", (28, 512),
)  # fmt: skip
# The ReLU after these convs is compared: relu1_1, relu2_1, relu3_1, relu4_1, relu5_1.
_COMPARED = {0: 1 / 32, 5: 1 / 16, 10: 1 / 8, 19: 1 / 4, 28: 1.0}


class VGG19(nn.Module):
    """The first layers of VGG19. Keys are torchvision's (`features.0.weight`, ..); `load_perceptual` fills them in."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        fin = 3
        for step in _VGG19:
            if step != "pool":
                index, fout = step
                self.features[str(index)] = nn.Conv2d(fin, fout, 3, padding=1)
                fin = fout

    def forward(self, image: Tensor) -> list[Tensor]:
        """relu1_1 .. relu5_1 of images [N, 3, H, W], H and W at least 16: [N, 64, H, W] .. [N, 512, H/16, W/16]."""
        x, found = image, []
        for step in _VGG19:
            if step == "pool":
                x = F.max_pool2d(x, 2)
                continue
            x = F.relu(self.features[str(step[0])](x))
            if step[0] in _COMPARED:
                found.append(x)
        return found


class PerceptualLoss(nn.Module):
    """L1 between the feature maps that a network makes of two images, a weighted sum over the maps.

    Args:
        network: what `features` reads; no gradient reaches its weights.
        features: images [N, 3, H, W] in -1..1 -> maps.
        weights: of each map; None: 1.
    """

    def __init__(
        self, network: nn.Module, features: Callable[[Tensor], Sequence[Tensor]], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        for parameter in network.parameters():  # TorchScript has no requires_grad_ of its own
            parameter.requires_grad_(False)
        self._features, self._weights = features, weights

    def forward(self, fake: Tensor, real: Tensor, difference: Difference = mean_difference) -> Tensor:
        """fake and real [N, 3, H, W] in -1..1 (read as they are, no ImageNet normalisation) -> a float32 scalar."""
        with torch.no_grad():
            wanted = self._features(real)
        weights = self._weights or [1.0] * len(wanted)
        maps = zip(weights, self._features(fake), wanted, strict=True)
        return torch.stack([weight * difference(f, r) for weight, f, r in maps]).sum()


def vgg_loss(network: VGG19) -> PerceptualLoss:
    """The paper's: relu1_1 .. relu5_1, weights 1/32, 1/16, 1/8, 1/4, 1."""
    return PerceptualLoss(network, network, tuple(_COMPARED.values()))


def load_perceptual(vgg: str, features: str = "") -> PerceptualLoss | None:
    """The perceptual loss: with torchvision's VGG19 weights, or on the `features` of another network.

    Args:
        vgg: file (.pth or .safetensors), or empty.
        features: TorchScript file whose forward returns maps, or `scenes`: the network that ships; or empty.

    None, said once, where both are empty. Raises LossError, ConvertError or JudgeError where a file cannot be read,
    naming every key it lacks.
    """
    if vgg and features:
        raise LossError(f"[loss] expected loss.vgg or loss.features but got both, '{vgg}' and '{features}'")
    if features == "scenes":
        scenes = load_segmentation(FEATURES)
        return PerceptualLoss(scenes, scenes.features)
    if features:
        network = load_torchscript(Path(features))
        return PerceptualLoss(network, lambda images: feature_maps(network(images), features))
    if vgg:
        return vgg_loss(_load_vgg(Path(vgg)))
    _log.warning(
        "perceptual loss off: no VGG19 weights given; save torchvision's vgg19 state dict and give its path as "
        "loss.vgg, or another network as loss.features"
    )
    return None


def _load_vgg(path: Path) -> VGG19:
    state = _read_weights(path)
    module = VGG19()
    wanted = module.state_dict()
    faults = [f"missing {key}" for key in wanted if key not in state]
    faults += [
        f"{key} is {list(state[key].shape)}, not {list(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if faults:
        raise LossError(
            f"[loss] expected torchvision's VGG19 weights in '{path}' but got {len(faults)} faults: "
            f"{'; '.join(faults)}; save torchvision.models.vgg19(weights='DEFAULT').state_dict()"
        )
    module.load_state_dict({key: state[key].float() for key in wanted})
    return module.eval()


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LossError(
            f"[loss] expected readable VGG19 weights but got '{path}' ({error}); fetch or write the file again"
        ) from None
