"""Distances of generated images from real ones: Fréchet distance beside its floor, and errors at the border.

The Fréchet distance of N generated images from N real ones is never 0, so it stands beside the distance of two halves
of the real images: a perfect generator's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HalvesScore:
    """Fréchet distances by a judge's features (Heusel et al., NeurIPS 2017, equation 6).

    Attributes:
        generated: of the images generated for the maps of the first half from the real images of the second half.
        real: of the real images of the first half from the second half.
        images: images of each half.
    """

    generated: float
    real: float
    images: int


@dataclass
class Halves:
    """Features of generated and real images: even images are the first half, odd ones the second."""

    generated: list[Floats] = field(default_factory=list)
    first: list[Floats] = field(default_factory=list)
    second: list[Floats] = field(default_factory=list)

    def add(self, generated: Floats, real: Floats, index: int) -> None:
        """Add features [N, D] of generated and real images; `index` is the number of images added before."""
        even = (np.arange(index, index + len(real)) % 2) == 0
        self.generated.append(np.asarray(generated, np.float64)[even])
        self.first.append(np.asarray(real, np.float64)[even])
        self.second.append(np.asarray(real, np.float64)[~even])

    def score(self) -> HalvesScore | None:
        """The distances, or None for halves of fewer than two images."""
        drawn, first, second = (np.concatenate(part) for part in (self.generated, self.first, self.second))
        if min(len(first), len(second)) < 2:
            return None
        return HalvesScore(frechet(drawn, second), frechet(first, second), len(second))


def frechet(a: Floats, b: Floats) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of features [N, D] and [M, D] with covariances A and B."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    given = nn.Identity()
    given.num_features = a.shape[1]  # what torchmetrics asks a network of features for
    distance = FrechetInceptionDistance(feature=given)
    distance.update(torch.from_numpy(a), real=True)
    distance.update(torch.from_numpy(b), real=False)
    return float(distance.compute())


@dataclass(frozen=True)
class BorderScore:
    """Mean absolute errors, in grey levels, of images drawn in the styles of their real images.

    Attributes:
        border: of the pixels nearer to the image's border than `width`.
        middle: of the other pixels; each class counts as much as it does at the border.
        width: pixels.
    """

    border: float
    middle: float
    width: int


class BorderError:
    """Adds up errors by class, at the border and in the middle."""

    def __init__(self, classes: int) -> None:
        self.errors, self.pixels = np.zeros((2, classes)), np.zeros((2, classes))
        self.width = 0

    def add(self, drawn: npt.NDArray[np.uint8], real: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
        """Add images [N, H, W, 3] with label maps [N, H, W]; labels outside the classes are not counted."""
        _, height, width = labels.shape
        self.width = max(1, min(height, width) // 16)
        inner = np.zeros((height, width), bool)
        inner[self.width : height - self.width, self.width : width - self.width] = True
        error = np.abs(drawn.astype(np.float64) - real).mean(-1)
        known = (labels >= 0) & (labels < self.errors.shape[1])
        for part, here in enumerate((~inner, inner)):
            chosen = known & here
            ids = labels[chosen]
            self.pixels[part] += np.bincount(ids, minlength=self.pixels.shape[1])
            self.errors[part] += np.bincount(ids, error[chosen], minlength=self.pixels.shape[1])

    def score(self) -> BorderScore | None:
        """The errors over the classes that lie at the border and in the middle, or None where there are none."""
        both = (self.pixels > 0).all(0)
        if not both.any():
            return None
        means = self.errors[:, both] / self.pixels[:, both]
        share = self.pixels[0, both] / self.pixels[0, both].sum()
        return BorderScore(float(means[0] @ share), float(means[1] @ share), self.width)
