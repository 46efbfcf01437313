"""Made-up landscapes are repeatable, in range for every preset, and as varied as real maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spade_core.config import PRESETS, GeneratorConfig
from spade_core.maps.drawn import FIRST_THING, NAMES, SCENE_IDS, demo_map
from spade_core.maps.label_maps import LabelMapError, prepare

DEMO = PRESETS["demo"]


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_every_map_is_a_valid_request(config: GeneratorConfig, seed: int) -> None:
    labels, instances = demo_map(seed, config)
    assert labels.shape == instances.shape == (config.height, config.width)
    assert set(np.unique(labels)) <= set(SCENE_IDS[config.preset])
    prepare(labels[None], instances[None] if config.instance_edges else None, config)


def test_a_seed_is_a_map_and_another_seed_another_map() -> None:
    first, again, other = demo_map(5, DEMO), demo_map(5, DEMO), demo_map(6, DEMO)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).mean() > 0.05


def test_all_classes_appear_and_the_sky_is_above() -> None:
    maps = [demo_map(seed, DEMO)[0] for seed in range(60)]
    assert set(np.unique(maps)) == set(range(16))
    for labels in maps:
        assert np.isin(labels[0], [NAMES.index(name) for name in ("sky", "cloud", "sun")]).all()
        assert not np.isin(labels[-1], [NAMES.index(name) for name in ("sky", "sun", "mountain")]).any()


def distinct_patches(labels: npt.NDArray[np.uint8]) -> float:
    """Distinct 5x5 patches per pixel, counted by a 64-bit hash."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(labels, 2, constant_values=255), (5, 5))
    factors = np.random.default_rng(0).integers(1, 2**63, (5, 5), np.uint64)
    return len(np.unique((windows * factors).sum(axis=(2, 3)))) / labels.size


def test_patches_repeat_as_in_real_maps() -> None:
    shares = [distinct_patches(demo_map(seed, DEMO)[0]) for seed in range(16)]
    assert 0.02 < np.mean(shares) < 0.1
    assert max(shares) < 0.15


def test_things_have_instances_of_their_own_and_regions_their_label() -> None:
    coco = PRESETS["coco"]
    house, roof, boat = (SCENE_IDS["coco"][NAMES.index(name)] for name in ("house", "roof", "boat"))
    found = 0
    for seed in range(20):
        labels, instances = demo_map(seed, coco)
        things = instances >= FIRST_THING
        np.testing.assert_array_equal(things, np.isin(labels, [house, roof, boat]))
        np.testing.assert_array_equal(instances[~things], labels[~things])
        found += len(np.unique(instances[things]))
    assert found > 20


def test_the_size_may_differ_from_the_configs() -> None:
    labels, instances = demo_map(1, PRESETS["coco"], height=128, width=320)
    assert labels.shape == instances.shape == (128, 320)


def test_presets_share_the_scene() -> None:
    demo = demo_map(3, DEMO)[0]
    for name in ("coco", "ade20k"):
        np.testing.assert_array_equal(demo_map(3, PRESETS[name])[0], np.array(SCENE_IDS[name])[demo])


def test_a_config_without_landscape_classes_is_refused() -> None:
    with pytest.raises(LabelMapError, match=r"expected a preset out of demo, coco, .* but got 'faces' with 19 classes"):
        demo_map(0, replace(DEMO, preset="faces", label_nc=19))
    with pytest.raises(LabelMapError, match="but got 'demo' with 8 classes; draw your own maps"):
        demo_map(0, replace(DEMO, label_nc=8))
