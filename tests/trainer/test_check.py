"""`spade check`: a whole data set is read, every bad file is listed, and what is in it is counted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from serving.cli.check import LAYOUTS as COMMAND_LAYOUTS
from serving.cli.main import main
from spade_core.config import PRESETS
from spade_core.maps.colours import DEMO_COLOURS, ColourTable, class_palette, draw
from trainer.data.check import DataSet, check_data, find_pairs, names_of
from trainer.data.layouts import LAYOUTS, DataError
from trainer.scenes.files import write_scenes


def spade(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    list(write_scenes(tmp_path / "data", 6, height=64, width=96, seed=0, style=None))
    return tmp_path / "data"


def test_the_command_knows_every_layout() -> None:
    assert COMMAND_LAYOUTS == LAYOUTS


def test_a_good_data_set_is_counted_and_shown(scenes: Path, tmp_path: Path) -> None:
    maps = [np.asarray(Image.open(path)) for path in sorted((scenes / "labels").iterdir())]
    heard: list[int] = []
    data = DataSet("folder", scenes, PRESETS["demo"], None)
    report = check_data(data, find_pairs(data), heard.append)
    assert sum(heard) == report.label_maps == 6
    assert report.bad == ()
    assert report.sizes == {(64, 96): 6}
    np.testing.assert_array_equal(report.pixels, np.bincount(np.stack(maps).ravel(), minlength=256))
    np.testing.assert_array_equal(report.maps[:16], [sum(int((one == i).any()) for one in maps) for i in range(16)])

    result = spade(scenes, "--preset", "demo", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "6 of 6 label maps are good, with their photo\n" in result.output
    assert "sizes, width x height: 96x64 (6)" in result.output
    assert "classes in no label map: " in result.output
    sky = next(line for line in result.output.splitlines() if line.split()[:2] == ["0", "sky"])
    assert f"{report.pixels[0] / report.pixels.sum():.2%}" in sky
    with Image.open(tmp_path / "out/contact_sheet.png") as sheet:
        assert sheet.size == (6 * (192 + 8) + 8, 2 * 128 + 16 + 8)
        np.testing.assert_array_equal(
            np.asarray(sheet)[8 + 64, 8 + 96], class_palette(PRESETS["demo"])[maps[0][32, 48]]
        )


def test_every_bad_file_is_listed_and_the_rest_is_read(scenes: Path, tmp_path: Path) -> None:
    whole = (scenes / "images/000000.png").read_bytes()
    (scenes / "images/000000.png").write_bytes(whole[: len(whole) // 2])
    (scenes / "images/000001.png").unlink()
    Image.new("L", (96, 64), 77).save(scenes / "labels/000002.png")
    Image.new("L", (64, 96)).save(scenes / "instances/000003.png")
    Image.new("RGB", (96, 64), (1, 2, 3)).save(scenes / "labels/000004.png")
    result = spade(scenes, "--classes", 16, "--out", tmp_path / "out")
    assert result.exit_code == 1
    bad = [line for line in result.output.splitlines() if line.startswith("bad: ")]
    expected = [
        "expected readable files but got an error at '.*images/000000.png'",
        "expected an image for the label map '.*labels/000001.png'",
        "expected ids 0..15 but got 77 in 6144 pixels",
        "'.*instances/000003.png' to have the size of its label map, 96x64, but got 64x96",
        "no colour table; give one",
    ]
    assert len(bad) == len(expected)
    for i, (line, text) in enumerate(zip(bad, expected, strict=True)):
        assert line.startswith(f"bad: {scenes / 'labels' / f'00000{i}.png'}: ")
        assert re.search(text, line), line
    assert "1 of 6 label maps are good, with their photo and instance map" in result.output
    assert (tmp_path / "out/contact_sheet.png").is_file()


def test_names_of_ids_follow_the_table_then_the_model(scenes: Path) -> None:
    table = ColourTable((0, 7), ((0, 0, 0), (1, 1, 1)), ("[heaven]", ""))
    names = names_of(DataSet("folder", scenes, PRESETS["coco"], table))
    assert (names[0], names[7], names[181], names[255]) == ("[heaven]", "class 7", "class 181", "don't care")


def test_many_sizes_are_cut_short_and_names_are_no_markup(scenes: Path, tmp_path: Path) -> None:
    for i in range(12):
        Image.new("L", (10 + i, 10 + i)).save(scenes / "labels" / f"a{i:02}.png")
        Image.new("RGB", (10 + i, 10 + i)).save(scenes / "images" / f"a{i:02}.png")
    (tmp_path / "table.csv").write_text("id,r,g,b,name\n0,0,0,0,[heaven]\n")
    for path in (scenes / "instances").iterdir():
        path.unlink()
    (scenes / "instances").rmdir()
    result = spade(scenes, "--colours", tmp_path / "table.csv", "--out", tmp_path / "out")
    assert "sizes, width x height: 96x64 (6), 10x10 (1), " in result.output
    assert ", and 5 more\n" in result.output
    assert " 0   [heaven] " in result.output


def test_without_a_model_any_ids_are_good(scenes: Path, tmp_path: Path) -> None:
    Image.new("L", (96, 64), 200).save(scenes / "labels/000002.png")
    result = spade(scenes, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "200  class 200" in result.output
    assert "no label map" not in result.output


def test_label_maps_in_colours_are_checked_through_a_table(scenes: Path, tmp_path: Path) -> None:
    plain = spade(scenes, "--preset", "demo", "--out", tmp_path / "plain")
    for path in (scenes / "labels").iterdir():
        Image.fromarray(draw(np.asarray(Image.open(path)), class_palette(PRESETS["demo"]))).save(path)
    painted = spade(scenes, "--colours", DEMO_COLOURS, "--out", tmp_path / "out")
    assert painted.exit_code == 0, painted.output
    assert painted.output.splitlines()[:4] == plain.output.splitlines()[:4]
    sheets = [(tmp_path / name / "contact_sheet.png").read_bytes() for name in ("plain", "out")]
    assert sheets[0] == sheets[1], "the table's colours are the demo's"


def test_a_folder_without_label_maps_and_wrong_usage_are_told(scenes: Path, tmp_path: Path) -> None:
    empty = spade(tmp_path, "--out", tmp_path / "out")
    assert empty.exit_code == 1
    assert "expected the folder" in empty.output
    assert not (tmp_path / "out").exists()
    both = spade(scenes, "--preset", "demo", "--classes", 3)
    assert both.exit_code == 2
    (tmp_path / "annotations/training").mkdir(parents=True)
    (tmp_path / "images/training").mkdir(parents=True)
    with pytest.raises(DataError, match=r"the layout 'ade20k' has none"):
        find_pairs(DataSet("ade20k", tmp_path, PRESETS["coco"], None))
