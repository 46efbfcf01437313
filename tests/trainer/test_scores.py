"""mIoU, accuracy and distances against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.evaluation.scores import Confusion, feature_distance, pairs, pixel_distance

# Float32 sums of a few hundred numbers below one.
TOLERANCE = 1e-5
NAMES = ("sky", "grass", "tree", "road")


def test_scores_are_set_operations_on_pixels() -> None:
    rng = np.random.default_rng(0)
    labels, found = rng.integers(0, 3, (2, 5, 7)), rng.integers(0, 3, (2, 5, 7))
    confusion = Confusion(4)
    for i in (0, 1):  # one batch after the other
        confusion.add(torch.from_numpy(labels[i : i + 1]), torch.from_numpy(found[i : i + 1]))
    scores = confusion.scores(NAMES)
    ious = [((labels == c) & (found == c)).sum() / ((labels == c) | (found == c)).sum() for c in range(3)]
    assert scores.class_iou == pytest.approx(dict(zip(NAMES, ious, strict=False)), abs=1e-12)
    assert scores.miou == pytest.approx(np.mean(ious), abs=1e-12)
    assert scores.pixel_accuracy == pytest.approx((labels == found).mean(), abs=1e-12)
    assert scores.pixels == labels.size


def test_dont_care_is_not_counted_and_an_unknown_find_is_wrong() -> None:
    confusion = Confusion(4)
    confusion.add(torch.tensor([[[0, 0, 255, 255]]]), torch.tensor([[[0, 9, 0, 1]]]))
    scores = confusion.scores(NAMES)
    assert scores.pixels == 2
    assert scores.pixel_accuracy == 0.5
    assert scores.class_iou == {"sky": 0.5}


def test_nothing_to_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected labelled pixels to count but got none"):
        Confusion(4).scores(NAMES)


def test_pixel_distance_is_the_share_of_the_full_range() -> None:
    black, white = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    assert pixel_distance(black, white).tolist() == [1, 1]
    assert pixel_distance(white, white).tolist() == [0, 0]


def test_feature_distance_is_of_directions_only() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, 8, 3, 5)).astype(np.float32) for _ in range(2))
    unit_a, unit_b = (x / np.sqrt((x**2).sum(1, keepdims=True)) for x in (a, b))
    wanted = ((unit_a - unit_b) ** 2).sum(1).mean((1, 2))
    found = feature_distance([torch.from_numpy(3 * a)] * 2, [torch.from_numpy(b)] * 2)
    assert np.abs(found.numpy() - 2 * wanted).max() <= TOLERANCE


def test_pairs_are_all_of_them_once() -> None:
    assert pairs(3) == [(0, 1), (0, 2), (1, 2)]
