"""Scenes: the same from a seed, in the colours that their classes and styles have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from spade_core.maps.drawn import NAMES
from spade_core.maps.label_maps import read_instance_map, read_label_map
from trainer.scenes.files import parse_size, write_scenes
from trainer.scenes.noise import SIZE, sample, table
from trainer.scenes.render import render
from trainer.scenes.scene import scene
from trainer.scenes.styles import STYLES, SceneError, palette


def mean_colour(style: str, name: str, seeds: range) -> npt.NDArray[np.float64]:
    pixels = []
    for seed in seeds:
        one = scene(seed, height=64, width=64, style=style)
        pixels.append(one.image[one.labels == NAMES.index(name)])
    return np.concatenate(pixels).mean(axis=0)


def test_a_scene_follows_from_its_seed() -> None:
    first, again, other = (scene(seed, height=64, width=96) for seed in (3, 3, 4))
    assert first.image.shape == (64, 96, 3)
    assert first.style == again.style
    assert (first.image == again.image).all()
    assert (first.labels == again.labels).all()
    assert (first.image != other.image).any()


def test_styles_keep_the_layout_and_differ_in_brightness() -> None:
    noon, night = (scene(7, height=64, width=64, style=style) for style in ("noon", "night"))
    assert (noon.labels == night.labels).all()
    assert noon.image.mean() > 2 * night.image.mean()


@pytest.mark.parametrize(
    ("style", "name", "brightest"),
    [("noon", "sky", 2), ("noon", "grass", 1), ("noon", "sand", 0), ("sunset", "sky", 0), ("night", "sky", 2)],
)
def test_classes_have_their_colours(style: str, name: str, brightest: int) -> None:
    assert mean_colour(style, name, range(24)).argmax() == brightest


def test_every_class_appears_in_some_scene_and_is_drawn() -> None:
    seen: set[int] = set()
    for seed in range(40):
        one = scene(seed, height=64, width=64, style="noon")
        seen |= set(np.unique(one.labels).tolist())
        assert one.image.min(axis=2).max() > 100, "something is bright"
    assert seen == set(range(len(NAMES)))


@pytest.mark.parametrize("label", range(len(NAMES)))
def test_a_map_of_one_class_can_be_rendered(label: int) -> None:
    labels = np.full((32, 32), label, np.uint8)
    image = render(labels, labels.astype(np.int32), palette("noon"), np.random.default_rng(0))
    assert image.shape == (32, 32, 3)
    assert image.std() > 1, "a surface has texture"


def test_noise_is_standard_and_tiles() -> None:
    noise = table(1.5, 0)
    assert abs(float(noise.mean())) < 1e-3
    assert float(noise.std()) == pytest.approx(1, abs=1e-3)
    at = np.arange(4, dtype=np.float32)
    assert (sample(noise, at - SIZE, at + 3 * SIZE) == sample(noise, at, at)).all()


def test_files_are_what_training_and_synthesis_read(tmp_path: Path) -> None:
    written = list(write_scenes(tmp_path, 3, height=64, width=96, seed=5, style="winter"))
    assert [p.name for p in sorted((tmp_path / "labels").iterdir())] == ["000005.png", "000006.png", "000007.png"]
    assert (read_label_map(tmp_path / "labels/000006.png") == written[1].labels).all()
    assert (read_instance_map(tmp_path / "instances/000006.png") == written[1].instances).all()
    with Image.open(tmp_path / "images/000006.png") as image:
        assert (np.asarray(image) == written[1].image).all()
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.size == (3 * 104 + 8, 2 * 64 + 16 + 8)


def test_errors_name_the_choices() -> None:
    with pytest.raises(SceneError, match=r"expected a style out of noon, .* but got 'noo'"):
        scene(0, height=64, width=64, style="noo")
    with pytest.raises(SceneError, match=r"expected a size like 256 or 256x512 .* but got '12p'"):
        parse_size("12p")
    with pytest.raises(SceneError, match="multiples of 32"):
        scene(0, height=60, width=64)
    assert parse_size("64") == (64, 64)
    assert parse_size("64x128") == (64, 128)
    assert len(STYLES) >= 6
