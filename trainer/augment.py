"""DiffAugment: random changes of the images that the discriminator sees, with gradients for the generator.

Zhao et al., NeurIPS 2020, arXiv 2006.10738. Fake and real images are changed in training of both sides, so the
generator does not learn the changes. Here a fake and a real image of one label map share their change, so that feature
matching compares like with like. The paper's third change, translation, is left out: it would part image and label map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.config import Augment

CHANGES = 5  # random numbers of an image: brightness, saturation, contrast, and the cutout's y and x


def diff_augment(images: Tensor, random: Tensor, policy: Augment) -> Tensor:
    """T of images [N, 3, H, W] in -1..1, by random numbers [N, 5] in 0..1; section 3.3, color and cutout."""
    if "color" in policy:
        images = color(images, random[:, :3])
    if "cutout" in policy:
        images = cutout(images, random[:, 3:])
    return images


def color(images: Tensor, random: Tensor) -> Tensor:
    """Shift brightness by -0.5 .. 0.5, then scale saturation by 0 .. 2, then contrast by 0.5 .. 1.5.

    Saturation is the distance from the mean over channels, contrast from the mean over the image.

    Args:
        random: [N, 3] in 0..1.
    """
    brightness, saturation, contrast = random.to(images.dtype).T[:, :, None, None, None]
    x = images + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    changed: Tensor = (x - mean) * (contrast + 0.5) + mean
    return changed


def cutout(images: Tensor, random: Tensor) -> Tensor:
    """Set a rectangle of half the height and half the width to 0, its centre anywhere in the image.

    Args:
        random: [N, 2] in 0..1, the centre's y and x.
    """
    rows, columns = (_hidden(side, centre) for side, centre in zip(images.shape[2:], random.T, strict=True))
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _hidden(side: int, centre: Tensor) -> Tensor:
    """Which of `side` places half a side about each centre [N] in 0..1 covers: bool [N, side]."""
    first = torch.floor(centre * (side + 1))[:, None] - side // 4
    place = torch.arange(side, device=centre.device)
    return (place >= first) & (place < first + side // 2)
