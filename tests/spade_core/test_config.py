"""Configurations: the presets match the paper, and a bad value is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spade_core.config import PRESETS, ConfigError, GeneratorConfig, level_sizes, preset


@pytest.mark.parametrize(
    ("name", "semantic_nc", "symbols"), [("coco", 184, 366), ("ade20k", 151, 151), ("cityscapes", 36, 70)]
)
def test_presets_have_the_published_input_channels(name: str, semantic_nc: int, symbols: int) -> None:
    assert preset(name).semantic_nc == semantic_nc
    assert preset(name).symbols == symbols


def test_levels_run_from_the_start_size_to_the_image() -> None:
    assert preset("coco").level_sizes == ((8, 8), (16, 16), (32, 32), (64, 64), (128, 128), (256, 256))
    assert preset("cityscapes").level_sizes[0] == (4, 8)


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())
def test_a_configuration_survives_its_dictionary(config: GeneratorConfig) -> None:
    assert GeneratorConfig.from_dict(config.to_dict()) == config


def test_unknown_and_missing_fields_are_all_named() -> None:
    values = preset("demo").to_dict()
    del values["nf"]
    with pytest.raises(ConfigError, match=r"unknown \['widht'\], missing \['nf'\]"):
        GeneratorConfig.from_dict(values | {"widht": 3})


def test_a_configuration_without_an_architecture_is_spade() -> None:
    values = preset("coco").to_dict()
    del values["architecture"]
    assert GeneratorConfig.from_dict(values) == preset("coco")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"architecture": "unet"}, "one of spade, concat, pix2pixhd, pix2pixhd-spade, spadenet, module but got 'unet'"),
        ({"architecture": "pix2pixhd", "style": True}, "style false .*but got style True"),
        ({"label_nc": 0}, "label_nc in 1..255 .* but got 0"),
        ({"label_nc": 256}, "label_nc in 1..255 .*255 is don't care.* but got 256"),
        ({"label_nc": 257, "dont_care": False}, "label_nc in 1..256 .* but got 257"),
        ({"norm": "group"}, "norm to be one of instance, batch, syncbatch but got 'group'"),
        ({"upsampling": "some"}, "upsampling to be one of normal, more, most but got 'some'"),
        ({"spade_kernel": 2}, "spade_kernel 1, 3 or 5 but got 2"),
        ({"nf": 3}, "nf to be even and at least 2 but got 3"),
        ({"nf": 64.0}, "nf to be of type int but got 64.0"),
        ({"height": 250}, "multiples of 32 .* but got 250x256; the nearest is 256x256"),
    ],
)
def test_a_bad_value_is_named_with_its_limit(change: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        replace(preset("coco"), **change)  # type: ignore[arg-type]


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="coco, ade20k, cityscapes, demo but got 'imagenet'"):
        preset("imagenet")


def test_a_size_below_one_start_pixel_is_refused() -> None:
    with pytest.raises(ConfigError, match="but got 0x32"):
        level_sizes(0, 32, 5)
