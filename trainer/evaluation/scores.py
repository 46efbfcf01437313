"""Scores of generated images: mIoU and pixel accuracy from labels, diversity from distances between images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelScores:
    """How well a segmentation network finds the label maps back in images (SPADE paper, section 4).

    Attributes:
        miou: mean over `class_iou`, 0..1.
        pixel_accuracy: share of the counted pixels whose label was found, 0..1.
        class_iou: intersection over union by class name, of every class that is in a label map or was found.
        pixels: counted pixels.
    """

    miou: float
    pixel_accuracy: float
    class_iou: dict[str, float]
    pixels: int


class Confusion:
    """Counts pixels by (label, found label), over as many batches as are added."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = torch.zeros((classes, classes + 1), dtype=torch.int64)  # last column: another label was found

    def add(self, labels: Tensor, found: Tensor) -> None:
        """Labels and found labels, integers [N, H, W]. Labels outside 0 .. classes - 1 are not counted."""
        counted = (labels >= 0) & (labels < self.classes)
        wanted, got = labels[counted].long(), found[counted].long()
        got = torch.where((got < 0) | (got >= self.classes), self.classes, got)
        flat = torch.bincount(wanted * (self.classes + 1) + got, minlength=self.counts.numel())
        self.counts += flat.view_as(self.counts).cpu()

    def scores(self, names: Sequence[str]) -> LabelScores:
        """IoU = hits / (labelled + found - hits), averaged over the classes where that is not 0 / 0.

        Raises ValueError where no pixel was counted.
        """
        hits = self.counts.diagonal()
        pixels = int(self.counts.sum())
        if not pixels:
            raise ValueError(
                "[evaluate] expected labelled pixels to count but got none; are all labels don't care or unmapped?"
            )
        union = self.counts.sum(1) + self.counts.sum(0)[: self.classes] - hits
        iou = {names[i]: int(hits[i]) / int(union[i]) for i in range(self.classes) if union[i]}
        return LabelScores(sum(iou.values()) / len(iou), int(hits.sum()) / pixels, iou, pixels)


def pixel_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean |a - b| / 255 of images uint8 [N, 3, H, W] -> [N], 0..1."""
    return (a.float() - b.float()).abs().flatten(1).mean(1) / 255


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """LPIPS without its learned weights (Zhang et al., CVPR 2018, equation 1): maps [N, C, h, w] of two images -> [N].

    The features of each position are scaled to length 1. Squared differences are summed over channels, averaged over
    positions and summed over maps.
    """
    total = torch.zeros(a[0].shape[0], device=a[0].device)
    for left, right in zip(a, b, strict=True):
        difference = _unit(left.float()) - _unit(right.float())
        total = total + difference.square().sum(1).flatten(1).mean(1)
    return total


def _unit(features: Tensor) -> Tensor:
    return features / features.square().sum(1, keepdim=True).sqrt().clamp_min(1e-10)


def pairs(count: int) -> list[tuple[int, int]]:
    """Every pair of `count` samples of one label map."""
    return list(combinations(range(count), 2))
