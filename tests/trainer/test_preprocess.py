"""Preprocess modes give their sizes, and keep label map and image together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spade_core.config import preset
from trainer.data.preprocess import Pixels, preprocess

CONFIG = replace(preset("demo"), height=64, width=64, instance_edges=True)


def pixels(height: int, width: int) -> Pixels:
    """Labels in blocks of 8 pixels, and an image in the labels' colours."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 16, (height // 8, width // 8), np.uint8).repeat(8, 0).repeat(8, 1)
    return Pixels(labels, labels.astype(np.int32), np.repeat(labels[..., None] * 15, 3, axis=2))


@pytest.mark.parametrize(
    ("mode", "load_size", "expected"),
    [
        ("resize_and_crop", 72, (64, 64)),
        ("crop", 1, (64, 64)),
        ("scale_width", 96, (64, 96)),
        ("scale_width_and_crop", 144, (64, 64)),
        ("scale_shortside", 64, (64, 96)),
        ("scale_shortside_and_crop", 72, (64, 64)),
        ("fixed", 1, (64, 64)),
        ("none", 1, (160, 224)),
    ],
)
def test_sizes(mode: str, load_size: int, expected: tuple[int, int]) -> None:
    # The model takes multiples of 32: 152 is rounded to 160, and 152 / 216 * 96 = 67.6 to 64.
    out = preprocess(pixels(152, 216), mode, load_size, False, CONFIG, np.random.default_rng(0))
    assert out.labels.shape == expected
    assert out.image.shape == (*expected, 3)
    assert out.instances is not None
    assert out.instances.shape == expected


def test_crop_and_flip_move_label_map_and_image_together() -> None:
    seen = set()
    for seed in range(8):
        out = preprocess(pixels(144, 216), "crop", 1, True, CONFIG, np.random.default_rng(seed))
        assert (out.image[..., 0] == out.labels * 15).all()
        assert out.instances is not None
        assert (out.instances == out.labels).all()
        seen.add(out.labels.tobytes())
    assert len(seen) == 8


def test_a_flip_mirrors_every_other_time() -> None:
    source = pixels(64, 64)
    flipped = 0
    for seed in range(40):
        out = preprocess(source, "fixed", 1, True, CONFIG, np.random.default_rng(seed))
        flipped += int((out.labels == source.labels[:, ::-1]).all())
        assert (out.labels == source.labels).all() or (out.labels == source.labels[:, ::-1]).all()
    assert 8 <= flipped <= 32


@pytest.mark.parametrize("mode", ["fixed", "resize_and_crop", "scale_shortside_and_crop"])
@pytest.mark.parametrize("edge", range(500, 508))
def test_labels_stay_under_their_photo(mode: str, edge: int) -> None:
    """The photo is white where the label map is 1. After resize, crop and flip, each label names its own pixel."""
    labels = np.zeros((1024, 1024), np.uint8)
    labels[:, edge:] = 1
    source = Pixels(labels, labels.astype(np.int32), np.repeat(labels[..., None] * 255, 3, axis=2))
    flipped = set()
    for seed in range(6):
        out = preprocess(source, mode, 71, True, CONFIG, np.random.default_rng(seed))
        light = out.image[..., 0].astype(int)
        sure = abs(light - 127.5) > 16  # elsewhere the edge runs through the middle of a pixel
        np.testing.assert_array_equal(out.labels[sure], light[sure] > 127)
        np.testing.assert_array_equal(out.instances, out.labels)
        flipped.add(bool(out.labels[0, 0]))
    assert flipped == {False, True}


def test_labels_are_never_interpolated() -> None:
    out = preprocess(pixels(64, 64), "resize_and_crop", 100, False, CONFIG, np.random.default_rng(0))
    assert set(np.unique(out.labels)) <= set(np.unique(pixels(64, 64).labels))
    assert len(np.unique(out.image)) > 16, "the image is"


def test_a_crop_larger_than_the_image_is_padded_with_black() -> None:
    source = pixels(32, 80)
    out = preprocess(source, "crop", 1, False, CONFIG, np.random.default_rng(0))
    assert out.labels.shape == out.image.shape[:2] == (64, 64)
    assert out.instances is not None
    assert not out.labels[32:].any()
    assert not out.image[32:].any()
    assert not out.instances[32:].any()
    places = [left for left in range(17) if (out.labels[:32] == source.labels[:, left : left + 64]).all()]
    assert len(places) == 1, "the width, which is large enough, is cropped at random"
    assert (out.image[:32] == source.image[:, places[0] : places[0] + 64]).all()
