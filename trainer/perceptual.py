"""The perceptual loss and the networks whose features it compares: VGG19, or a network from a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spade_core.files.faults import key_faults, refuse_faults, shapes_of
from spade_core.files.pickled import read_state_dict
from spade_core.losses import Difference, LossError, perceptual_loss
from spade_core.mean_difference import mean_difference
from trainer.evaluation.judges import feature_maps, load_torchscript
from trainer.evaluation.segmentation import load_segmentation, network_file

_log = logging.getLogger(__name__)

# Layers of torchvision's `vgg19().features`: (index there, output channels) of each 3x3 conv; "pool" halves the size.
_VGG19: tuple[tuple[int, int] | Literal["pool"], ...] = (
    (0, 64), (2, 64), "pool", (5, 128), (7, 128), "pool", (10, 256), (12, 256), (14, 256), (16, 256), "pool",
    (19, 512), (21, 512), (23, 512), (25, 512), "pool", (28, 512),
)  # fmt: skip
# Weights of the maps after the ReLU of these convs: relu1_1, relu2_1, relu3_1, relu4_1, relu5_1.
_COMPARED = {0: 1 / 32, 5: 1 / 16, 10: 1 / 8, 19: 1 / 4, 28: 1.0}


class VGG19(nn.Module):
    """The first layers of VGG19 under torchvision's keys (`features.0.weight`, ..); `load_perceptual` loads weights."""

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
    """L1 between a network's feature maps of two images, a weighted sum over the maps.

    Args:
        network: the module behind `features`; its weights get no gradient.
        features: images [N, 3, H, W] in -1..1 -> feature maps.
        weights: one for each map; None means 1.
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
        """fake and real [N, 3, H, W] in -1..1, without ImageNet normalisation -> a float32 scalar."""
        with torch.no_grad():
            wanted = self._features(real)
        weights = self._weights or [1.0] * len(wanted)
        return perceptual_loss(wanted, self._features(fake), weights, difference)


def vgg_loss(network: VGG19) -> PerceptualLoss:
    """The paper's perceptual loss: relu1_1 .. relu5_1 with weights 1/32, 1/16, 1/8, 1/4, 1 (pix2pixHD, section 4)."""
    return PerceptualLoss(network, network, tuple(_COMPARED.values()))


def load_perceptual(vgg: str, features: str = "") -> PerceptualLoss | None:
    """The perceptual loss on VGG19 or on another network; None, with one warning, where both arguments are empty.

    Args:
        vgg: file of torchvision's VGG19 weights (.pth or .safetensors), or empty.
        features: TorchScript file whose forward returns feature maps; or `scenes` or `lit-scenes`, networks that know
            scenes of the looks flat and lit; or empty.

    Raises LossError, ConvertError or JudgeError where a file cannot be read, with every key that it lacks.
    """
    if vgg and features:
        raise LossError(f"[loss] expected loss.vgg or loss.features but got both, '{vgg}' and '{features}'")
    if features in ("scenes", "lit-scenes"):
        scenes = load_segmentation(network_file("flat" if features == "scenes" else "lit", teacher=True))
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
    used = {key: state[key] for key in wanted if key in state}  # the file also holds the layers behind relu5_1
    refuse_faults(
        LossError, key_faults(shapes_of(used), shapes_of(wanted)), path,
        "[loss] expected torchvision's VGG19 weights",
        "save torchvision.models.vgg19(weights='DEFAULT').state_dict()",
    )  # fmt: skip
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
