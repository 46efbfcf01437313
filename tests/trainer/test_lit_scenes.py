"""Scenes in the look `lit`: the same maps, surfaces in the light, shadows away from the sun, seasons that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from serving.cli.options import LOOKS as COMMAND_LOOKS
from spade_core.maps.drawn import NAMES
from trainer.data.dataset import scene_pixels
from trainer.evaluation.grid import GridEnergy
from trainer.evaluation.segmentation import SIZE, load_segmentation, network_file
from trainer.scenes.canvas import ID, canvas
from trainer.scenes.lit.render import render_lit
from trainer.scenes.lit.stage import stage
from trainer.scenes.lit.water import water
from trainer.scenes.scene import LOOKS, scene
from trainer.scenes.styles import SceneError, palette

Image = npt.NDArray[np.uint8]


def mean_colour(image: Image, labels: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.float64]:
    return image[labels == ID[name]].astype(np.float64).mean(0)


def test_a_lit_scene_follows_from_its_seed_and_has_the_flat_scenes_map() -> None:
    first, again, flat = (scene(3, height=64, width=96, look=look) for look in ("lit", "lit", "flat"))
    assert np.array_equal(first.image, again.image)
    assert first.image.shape == (64, 96, 3)
    assert np.array_equal(first.labels, flat.labels)
    assert np.array_equal(first.instances, flat.instances)
    assert not np.array_equal(first.image, flat.image)
    with pytest.raises(SceneError, match="expected a look out of flat, lit but got 'photo'"):
        scene(3, height=64, width=64, look="photo")


@pytest.mark.parametrize("label", range(len(NAMES)))
def test_a_map_of_one_class_can_be_rendered(label: int) -> None:
    labels = np.full((64, 64), label, np.uint8)
    image = render_lit(labels, labels.astype(np.int32), palette("noon"), np.random.default_rng(0))
    assert image.shape == (32, 32, 3)
    assert image.std() > 0


def test_seasons_and_hours_differ() -> None:
    """Seed 4 has trees, grass, houses and a road."""
    drawn = {
        name: scene(4, height=64, width=64, style=name, look="lit") for name in ("noon", "winter", "autumn", "night")
    }
    labels = drawn["noon"].labels
    red, green, _ = mean_colour(drawn["autumn"].image, labels, "tree")
    assert red > 1.25 * green
    red, green, _ = mean_colour(drawn["noon"].image, labels, "tree")
    assert green > 1.25 * red
    assert (
        mean_colour(drawn["winter"].image, labels, "grass").min()
        > 1.5 * mean_colour(drawn["noon"].image, labels, "grass").min()
    )
    assert drawn["night"].image.mean() < 0.5 * drawn["noon"].image.mean()


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_shadows_fall_away_from_the_sun(side: float) -> None:
    labels = np.full((128, 128), ID["grass"], np.uint8)
    labels[:50] = ID["sky"]
    labels[60:90, 60:68] = ID["tree"]
    c = canvas(labels, np.zeros((128, 128), np.int32), palette("noon"), np.random.default_rng(0))
    c.light_from = side
    shadow = stage(c, labels, 0.0).shadow.reshape(128, 128)
    left, right = shadow[:, :56].sum(), shadow[:, 72:].sum()
    assert (right - left) * -side > 20
    assert shadow[labels == ID["sky"]].max() == 0


def test_water_mirrors_what_stands_at_the_shore_and_the_far_sky() -> None:
    labels = np.full((128, 128), ID["water"], np.uint8)
    labels[:64] = ID["sky"]
    labels[50:64, 40:60] = ID["house"]
    c = canvas(labels, np.zeros((128, 128), np.int32), palette("noon"), np.random.default_rng(0))
    c.image[labels.ravel() == ID["sky"]] = (0, 0, 1)
    c.image[labels.ravel() == ID["house"]] = (1, 0, 0)
    rows = np.arange(128)[:, None]
    depth = np.clip(rows - np.where(labels == ID["water"], 63, 127), 0, None).astype(np.float32).ravel()
    s = stage(c, labels, 0.0)
    at = np.flatnonzero(labels.ravel() == ID["water"])
    picture = np.zeros((128 * 128, 3))
    picture[at] = water(s, at, labels, depth)
    picture = picture.reshape(128, 128, 3)
    below_house, below_sky = picture[66:74, 44:56].mean((0, 1)), picture[66:74, 90:].mean((0, 1))
    assert below_house[0] > below_sky[0] + 0.2
    assert below_sky[2] > below_house[2] + 0.2


def test_one_dashed_line_runs_along_a_road() -> None:
    labels = np.full((256, 256), ID["grass"], np.uint8)
    labels[:100] = ID["sky"]
    labels[100:, 80:176] = ID["road"]
    image = render_lit(labels, labels.astype(np.int32), palette("overcast"), np.random.default_rng(1)).astype(float)
    bright = image[60:, 42:86].mean(-1)  # the road at half the size, without its edges
    middle, sides = bright[:, 20:24].max(1), np.concatenate([bright[:, :14], bright[:, 30:]], 1).max(1)
    assert middle.max() > sides.max() + 30
    dark = middle < sides.mean() + 15
    assert np.abs(np.diff((middle > sides.max()).astype(int))).sum() >= 3, "dashes, with gaps between them"
    assert dark.any()


def test_plain_surfaces_have_no_grid() -> None:
    """A texture without a period: its peaks stay near 1, where a woven grid has a hundred."""
    found = GridEnergy()
    for seed in range(4):
        one = scene(seed, height=128, width=128, look="lit", style="noon")
        found.add(one.image[None], one.labels[None])
    assert found.squares > 50
    assert max(score.peak for score in found.scores().values()) < 6


def test_training_reads_the_look_and_judges_are_kept_apart(tmp_path: Path) -> None:
    from dataclasses import replace

    from spade_core.config import preset
    from trainer.config import DataConfig

    model = replace(preset("demo"), height=64, width=64)
    data = DataConfig(preprocess="fixed", look="lit")
    assert np.array_equal(scene_pixels(7, data, model).image, scene(7, height=64, width=64, look="lit").image)
    with pytest.raises(FileNotFoundError, match=r"train it: python -m trainer\.evaluation\.segmentation --look lit"):
        load_segmentation(tmp_path / "lit.safetensors")


@pytest.mark.parametrize("teacher", [False, True])
def test_the_networks_that_ship_know_scenes_that_taught_neither(teacher: bool) -> None:
    network = load_segmentation(network_file("lit", teacher=teacher))
    seen = [scene(seed, height=SIZE, width=SIZE, look="lit") for seed in range(6)]
    images = torch.from_numpy(np.stack([one.image for one in seen])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        found = network(images).argmax(1).numpy()
    assert np.mean(found == np.stack([one.labels for one in seen])) > 0.8


def test_the_commands_name_every_look() -> None:
    assert COMMAND_LOOKS == LOOKS
