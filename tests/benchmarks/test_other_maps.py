"""The maps for a comparison on unseen maps: new patches, of the model's size, readable as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from benchmarks.model.other_maps import main, write_map
from spade_core.config import PRESETS
from spade_core.maps.label_maps import read_instance_map
from spade_core.maps.samples import read_maps

COCO = PRESETS["coco"]


def test_ids_of_instances_survive_the_file(tmp_path: Path) -> None:
    instances = np.array([[0, 255, 256], [65535, 65536, 2**24 - 1]], np.int32)
    write_map(tmp_path, "one", np.zeros((2, 3), np.uint8), instances)
    np.testing.assert_array_equal(read_instance_map(tmp_path / "inst" / "one.png"), instances)


def test_each_map_gives_a_corner_a_mirrored_and_a_drawn_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    given, out = tmp_path / "given" / "label", tmp_path / "out"
    given.mkdir(parents=True)
    for name, size in (("large", (300, 400)), ("small", (100, 400))):
        Image.fromarray(random.integers(0, 182, size, dtype=np.uint8)).save(given / f"{name}.png")
    result = CliRunner().invoke(main, ["--labels", str(given.parent), "--out", str(out)], catch_exceptions=False)
    assert "wrote 5 label maps" in result.output
    names = sorted(path.stem for path in (out / "label").iterdir())
    assert names == ["corner-large", "drawn-0", "drawn-1", "mirrored-large", "mirrored-small"]
    maps = read_maps(COCO, out, 5)
    np.testing.assert_array_equal(maps.labels[0], np.asarray(Image.open(given / "large.png"))[-256:, -256:])
    assert maps.instances is not None
    np.testing.assert_array_equal(maps.instances[0], maps.labels[0])
