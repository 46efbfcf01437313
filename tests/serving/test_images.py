"""Files of `spade_image`: PNG maps are decoded to the model's size, and images are encoded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served import png

from serving.protocol import pad_files
from serving.requests.images import (
    MAX_BYTES,
    Encoding,
    as_palette,
    decode_maps,
    encode_images,
    read_colours,
    read_encoding,
    read_size,
)
from spade_core.config import PRESETS
from spade_core.maps.colours import class_palette, draw

DEMO = PRESETS["demo"]
COLOURS = as_palette(class_palette(DEMO))
NOISE = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)


def decode(*files: bytes) -> dict[str, Any]:
    return decode_maps(pad_files(files)[0], None, DEMO)


def test_maps_of_any_size_become_the_models_size_by_nearest() -> None:
    small = np.array([[1, 2], [3, 4]], np.uint8)
    labels = decode(png(small), png(np.full((300, 500), 7, np.uint8)))["labels"]
    assert labels.shape == (2, 256, 256)
    np.testing.assert_array_equal(labels[0], small.repeat(128, 0).repeat(128, 1))
    assert (labels[1] == 7).all()


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_images_become_files_of_the_format_asked_for(name: str) -> None:
    files = encode_images(NOISE, read_encoding({"format": name}))
    for file, pixels in zip(files, NOISE, strict=True):
        image = Image.open(io.BytesIO(file))
        assert image.format == name.upper()
        assert image.size == (48, 64)
        if name == "png":
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_quality_changes_the_size() -> None:
    low, high = (len(encode_images(NOISE[:1], Encoding("jpeg", q))[0]) for q in (10, 95))
    assert low < high / 2


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"format": "gif"}, "format png, jpeg, webp but got 'gif'"),
        ({"format": "png", "quality": 80}, "no quality with format png"),
        ({"format": "jpeg", "quality": 0}, r"integer 1\.\.100 but got 0"),
        ({"format": "jpeg", "quality": "high"}, r"integer 1\.\.100 but got 'high'"),
        ({"format": "webp", "quality": True}, r"integer 1\.\.100 but got True"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_encoding(parameters)


def test_the_bad_file_of_several_is_named() -> None:
    good = png(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"label_map 1: .*expected a whole PNG"):
        decode(good, good[:50])


def test_a_file_that_is_too_large_is_not_decoded() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_BYTES} bytes but got {MAX_BYTES + 1}"):
        decode(b"x" * (MAX_BYTES + 1))


def test_an_instance_map_of_another_size_is_named_with_both_sizes() -> None:
    labels, instances = png(np.zeros((8, 12), np.uint8)), png(np.zeros((12, 8), np.uint8))
    with pytest.raises(ValueError, match=r"instance_map 1 to have the size of its label map, 12x8, but got 8x12"):
        decode_maps(pad_files([labels, labels])[0], pad_files([labels, instances])[0], PRESETS["coco"])


RGB_MAP = np.array([[[0, 0, 0], [9, 8, 7]]], np.uint8)
TABLES = ["id,r,g,b,name\n4,0,0,0,\n5,9,8,7,\n", '[{"id":4,"r":0,"g":0,"b":0},{"id":5,"r":9,"g":8,"b":7}]']


@pytest.mark.parametrize("text", TABLES, ids=["CSV", "JSON"])
def test_a_label_map_in_colours_is_read_through_the_table_of_its_request(text: str) -> None:
    files = pad_files([png(RGB_MAP)])[0]
    labels = decode_maps(files, None, DEMO, read_colours({"colours": text}, DEMO, COLOURS))["labels"]
    assert (labels[0, :, :128] == 4).all()
    assert (labels[0, :, 128:] == 5).all()
    with pytest.raises(ValueError, match="or its text as the request parameter colours"):
        decode_maps(files, None, DEMO, read_colours({}, DEMO, COLOURS))


@pytest.mark.parametrize(
    ("colours", "text"),
    [
        (7, "expected colours as the text of a colour table of at most 65536 characters but got 7"),
        ("x" * 65537, "but got 65537 characters"),
        ("id,r,g\n", "expected the CSV header id,r,g,b,name in the request parameter colours but got"),
    ],
)
def test_a_bad_table_of_a_request_is_named(colours: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_colours({"colours": colours}, DEMO, COLOURS)


def test_padding_keeps_every_length() -> None:
    padded, lengths = pad_files([b"abc", b"abcdef", b""])
    assert padded.shape == (3, 6)
    assert lengths.tolist() == [[3], [6], [0]]
    assert [row[: n[0]].tobytes() for row, n in zip(padded, lengths, strict=True)] == [b"abc", b"abcdef", b""]


def test_rgb_maps_may_use_the_colours_of_the_models_own_classes() -> None:
    ids = np.arange(16, dtype=np.uint8).reshape(4, 4)
    own = 255 - class_palette(DEMO)  # as the weights of a training with an own colour table have them
    drawn = draw(ids, own)
    colours = read_colours({"colours": "model"}, DEMO, as_palette(own))
    labels = decode_maps(pad_files([png(drawn)])[0], None, DEMO, colours, (4, 4))["labels"]
    np.testing.assert_array_equal(labels, ids[None])


def test_dont_care_has_a_colour_of_its_own() -> None:
    coco = PRESETS["coco"]
    colours = read_colours({"colours": "model"}, coco, as_palette(class_palette(coco)))
    labels = decode_maps(pad_files([png(class_palette(coco)[None, 180:])])[0], None, coco, colours, (1, 3))["labels"]
    assert labels.tolist() == [[[180, 181, 255]]]


@pytest.mark.parametrize("size", ["64", "0x64", "axb", "64x64x64", 64, "5000x5000"])
def test_a_wrong_size_names_what_is_expected(size: object) -> None:
    with pytest.raises(ValueError, match=r"expected size as WIDTHxHEIGHT of at most 1048576 pixels, such as 256x256"):
        read_size({"size": size}, DEMO, 1 << 20)


def test_a_model_with_a_style_has_one_size() -> None:
    with pytest.raises(
        ValueError, match=r"expected size 256x256 .fixed for a generator with a style vector. but got 64x64"
    ):
        read_size({"size": "64x64"}, DEMO, 1 << 20)


def test_a_size_is_width_by_height() -> None:
    assert read_size({"size": "64x32"}, PRESETS["coco"], 1 << 20) == (32, 64)
    assert read_size({}, DEMO, 1 << 20) == (256, 256)
