"""Colour tables are read from files, with every fault named; palettes draw label maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spade_core.config import PRESETS
from spade_core.maps.colours import (
    DEMO_CLASSES,
    DEMO_COLOURS,
    ColourTable,
    ColourTableError,
    class_names,
    class_palette,
    draw,
    palette,
)
from spade_core.maps.drawn import demo_map

CSV = "id,r,g,b,name\n0,0,0,0,sky\n5,255,0,10, grass \n"
ENTRIES = [{"id": 0, "r": 0, "g": 0, "b": 0, "name": "sky"}, {"id": 5, "r": 255, "g": 0, "b": 10, "name": "grass"}]


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.csv", CSV),
        ("excel.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("other order.csv", "name,b,g,r,id\nsky,0,0,0,0\ngrass,10,0,255,5\n"),
        ("table.json", json.dumps(ENTRIES)),
    ],
)
def test_a_table_is_read(tmp_path: Path, name: str, text: str) -> None:
    table = ColourTable.load(written(tmp_path, name, text))
    assert table == ColourTable((0, 5), ((0, 0, 0), (255, 0, 10)), ("sky", "grass"))


def test_names_may_be_absent(tmp_path: Path) -> None:
    assert ColourTable.load(written(tmp_path, "t.csv", "id,r,g,b\n1,2,3,4\n")).names == ("",)
    assert ColourTable.load(written(tmp_path, "t.json", '[{"id":1,"r":2,"g":3,"b":4}]')).names == ("",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", r"expected the CSV header id,r,g,b,name in .* got None"),
        ("t.csv", "id,red,g,b\n0,0,0,0\n", r"without \['r'\]; write it as the first line"),
        ("t.csv", "id,r,g,b\n", "at least one, but got 0 ids"),
        ("t.csv", "id,r,g,b\n1,2,3\n", r"whole number for 'b' in '.*t\.csv', line 2 but got None"),
        ("t.csv", "id,r,g,b\n1,2,3,4\n1,2,x,4\n", r"whole number for 'g' in '.*t\.csv', line 3 but got 'x'"),
        ("t.csv", "id,r,g,b\n1,2,3,256\n", r"in 0\.\.255 but got 256 for id 1; correct it"),
        ("t.csv", "id,r,g,b\n-1,2,3,4\n", r"in 0\.\.255 but got -1 for id -1"),
        (
            "t.csv",
            "id,r,g,b\n1,2,3,4\n2,2,3,4\n",
            r"one id per colour but got \(2, 3, 4\) for the ids 1 and 2; keep one",
        ),
        ("t.json", "[{", "expected JSON in .*; correct the file"),
        ("t.json", '{"id": 1}', r"list of objects with id, r, g, b and name .* got '\{\"id\": 1\}'; write a list"),
        ("t.json", '[{"id":1,"r":2,"g":3,"b":1.5}]', r"whole number for 'b' in '.*', entry 0 but got 1\.5"),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ColourTableError, match=message):
        ColourTable.load(written(tmp_path, name, text))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ColourTableError, match=r"'.*missing\.csv'.*check the path and the encoding"):
        ColourTable.load(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"id,r,g,b,name\n1,2,3,4,\xe9\n")
    with pytest.raises(ColourTableError, match=r"UTF-8 text file but got .*latin"):
        ColourTable.load(tmp_path / "latin.csv")


def test_lengths_must_agree() -> None:
    with pytest.raises(ColourTableError, match="1 ids, 2 colours, 1 names"):
        ColourTable((0,), ((0, 0, 0), (1, 1, 1)), ("a",))


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=256, unique=True))
@settings(deadline=None)
def test_drawing_and_looking_up_are_inverse(colours: list[tuple[int, int, int]]) -> None:
    ids = tuple(range(len(colours)))
    table = ColourTable(ids, tuple(colours), ("",) * len(colours))
    labels = np.random.default_rng(len(colours)).integers(0, len(colours), (5, 7)).astype(np.uint8)
    found, known = table.ids_of(draw(labels, np.array(colours, np.uint8)))
    assert known.all()
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)


def test_unknown_colours_are_marked() -> None:
    table = ColourTable((9,), ((5, 5, 5),), ("",))
    found, known = table.ids_of(np.array([[[5, 5, 5], [5, 5, 6], [255, 255, 255]]], np.uint8))
    np.testing.assert_array_equal(known, [[True, False, False]])
    np.testing.assert_array_equal(found, [[9, 0, 0]])


@pytest.mark.parametrize("n", [0, 1, 16, 183, 256])
def test_a_palette_is_distinct_and_always_the_same(n: int) -> None:
    colours = palette(n)
    assert colours.shape == (n, 3)
    assert colours.dtype == np.uint8
    assert len({tuple(c) for c in colours.tolist()}) == n
    np.testing.assert_array_equal(colours, palette(256)[:n])


def test_the_demo_table_ships_and_reads_what_is_drawn_in_its_colours() -> None:
    table = ColourTable.load(DEMO_COLOURS)
    assert table.ids == tuple(range(16))
    assert tuple(zip(table.names, table.colours, strict=True)) == DEMO_CLASSES
    labels = demo_map(3, PRESETS["demo"])[0]
    found, known = table.ids_of(draw(labels, class_palette(PRESETS["demo"])))
    assert known.all()
    np.testing.assert_array_equal(found, labels)


def test_every_preset_can_be_drawn_and_named() -> None:
    for config in PRESETS.values():
        assert class_palette(config).shape == (config.classes, 3)
        assert len(class_names(config)) == config.classes
    assert class_names(PRESETS["demo"])[:2] == ("sky", "cloud")
    assert class_names(PRESETS["coco"])[-2:] == ("class 181", "don't care")
    assert len({colour for _, colour in DEMO_CLASSES}) == 16
    np.testing.assert_array_equal(class_palette(PRESETS["cityscapes"])[7], (128, 64, 128))


def test_drawing_keeps_the_batch_and_paints_the_unknown_black() -> None:
    image = draw(np.array([[[0, 1]], [[2, 255]]], np.uint8), np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    np.testing.assert_array_equal(image, [[[[1, 2, 3], [4, 5, 6]]], [[[0, 0, 0], [0, 0, 0]]]])
