"""Own data with a class list of its own: the names go from the configuration to every file and message."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from small_run import TABLES, small

from serving.cli.main import main
from serving.triton.model_config import ModelOptions, spade_image_config
from spade_core.config import ConfigError, GeneratorConfig
from spade_core.files.checkpoints import load
from spade_core.files.weights import info
from spade_core.maps.colours import ColourTable, ColourTableError, class_names, class_palette, saved_palette
from spade_core.models.generator import Generator
from trainer.config import TrainConfig
from trainer.config_file import from_tables, load_config
from trainer.data.dataset import Stream
from trainer.data.layouts import LAYOUTS
from trainer.loop import train
from trainer.output.samples import choose_samples
from trainer.output.state import StateError
from trainer.output.weights import export_weights
from trainer.processes import Processes
from trainer.run import start_or_resume

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ["Himmel", "Straße [B1]", "Wald"]
OWN: dict[str, Any] = {"preset": "custom", "classes": NAMES, "height": 32, "width": 32, "nf": 2}


def spade(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def own_data(root: Path, labels: str = "labels", images: str = "images", ends: tuple[str, str] = ("", "")) -> Path:
    """Four masks with the ids 0 to 2, and their photos, in the folders of a layout."""
    random = np.random.default_rng(0)
    for folder in (labels, images):
        (root / folder).mkdir(parents=True)
    for i in range(4):
        mask = random.integers(0, 3, (8, 8)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(mask).save(root / labels / f"{i}{ends[0]}.png")
        Image.fromarray(np.stack([mask * 80] * 3, -1)).save(root / images / f"{i}{ends[1]}.png")
    return root


def own_run(root: Path, out: Path, **data: Any) -> TrainConfig:
    tables = TABLES | {"model": OWN, "data": TABLES["data"] | {"layout": "folder", "root": str(root)} | data}
    tables["run"] = tables["run"] | {"out": str(out)}
    return from_tables(tables, "a test")


def test_the_configuration_that_ships_is_own_data_with_every_class_named() -> None:
    run = load_config(REPOSITORY / "configs/own-data.toml")
    assert (run.model.preset, run.model.label_nc, run.data.layout) == ("custom", 16, "folder")
    assert class_names(run.model) == run.model.class_names
    assert run.model.class_names[5] == "water"


def test_names_travel_from_the_configuration_to_checkpoint_and_server(tmp_path: Path) -> None:
    root = own_data(tmp_path / "data")
    train(own_run(root, tmp_path / "out"))
    weights = tmp_path / "out/weights.safetensors"
    config = info(weights).config
    assert (config.preset, config.label_nc, config.class_names) == ("custom", 3, tuple(NAMES))
    shown = spade("info", weights)
    assert "0 Himmel, 1 Straße [B1], 2 Wald" in shown.output

    assert load(weights).config == config
    served = spade_image_config(ModelOptions(weights=weights), config)
    values = json.loads(served.parameters["config"].string_value)
    assert GeneratorConfig.from_dict(values) == config

    scored = spade(
        "evaluate", weights, "--data", root, "--styles", 2, "--threads", 1, "--json", tmp_path / "scores.json"
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == 4
    drawn = spade("evaluate", weights)
    assert drawn.exit_code == 2
    assert "has its own: give --data" in " ".join(drawn.output.split())


def test_a_class_can_be_renamed_in_a_run_but_not_added(tmp_path: Path) -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    run = own_run(own_data(tmp_path / "data"), tmp_path / "out")
    start_or_resume(run, alone)
    renamed = from_tables_with(run, classes=["Himmel", "Weg", "Wald"])
    assert start_or_resume(renamed, alone).config.model.class_names[1] == "Weg"
    with pytest.raises(StateError, match=r"model.label_nc: 3 -> 4"):
        start_or_resume(from_tables_with(run, classes=[*NAMES, "See"]), alone)


def from_tables_with(run: TrainConfig, **model: Any) -> TrainConfig:
    return replace(run, model=from_tables({"model": OWN | model, "data": {"layout": "folder", "root": "x"}}, "").model)


def test_dont_care_has_a_name_after_the_own_ones() -> None:
    run = small(model=OWN | {"dont_care": True}, data={"layout": "folder", "root": "x"})
    assert class_names(run.model) == (*NAMES, "don't care")


def test_the_colour_table_paints_samples_and_contact_sheets(tmp_path: Path) -> None:
    table = tmp_path / "colours.csv"
    table.write_text("id,r,g,b,name\n0,1,2,3,\n2,9,9,9,\n2,8,8,8,\n9,7,7,7,\n")
    run = own_run(own_data(tmp_path / "data"), tmp_path / "out", colours=str(table))
    colours = class_palette(run.model, ColourTable.load(table))
    assert (colours[0].tolist(), colours[2].tolist()) == ([1, 2, 3], [9, 9, 9])
    np.testing.assert_array_equal(colours[1], class_palette(run.model)[1])
    stream = Stream(run)
    samples = choose_samples(stream, run)
    np.testing.assert_array_equal(samples.maps[0, 0, 0], colours[samples.batch.symbols[0, 0, 0]])
    # They travel in the checkpoint, and from there into exports.
    weights = tmp_path / "weights.safetensors"
    export_weights(weights, Generator(run.model), None, run, 1, 4, stream.colours)
    saved = load(weights)
    np.testing.assert_array_equal(saved_palette(saved.config, saved.metadata), colours)
    np.testing.assert_array_equal(saved_palette(saved.config, {}), class_palette(run.model))
    served = spade_image_config(ModelOptions(weights=weights), saved.config, saved.metadata)
    assert json.loads(served.parameters["palette"].string_value) == colours.tolist()
    with pytest.raises(ColourTableError, match=r"expected 3 colours of three values .* but got '\[\[1, 2\]\]'"):
        saved_palette(saved.config, {"palette": "[[1, 2]]"})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({}, r"expected model.classes to be a list of 1 to 256 names for the preset 'custom' in a file but got None; "
             r'name each id from 0 on: classes = \["sky", "grass"\]'),
        ({"classes": []}, "list of 1 to 256 names .* but got 0 names"),
        ({"classes": [f"c{i}" for i in range(257)]}, "list of 1 to 256 names .* but got 257 names"),
        ({"classes": "sky"}, "list of 1 to 256 names .* but got 'sky'"),
        ({"classes": ["sky", ""]}, "expected a name for each class but got '' for id 1"),
        ({"classes": ["sky", 3]}, "expected a name for each class but got 3 for id 1"),
        ({"classes": ["a", "b", "a"]}, "a name of its own but got 'a' for the ids 0 and 2; rename one"),
        ({"classes": ["a", "b"], "label_nc": 3}, "as many names as label_nc, 3, but got 2; .* leave label_nc out"),
        ({"preset": "coco", "classes": ["a"]}, r"for the preset 'coco'.* got \['a'\]; say preset = \"custom"),
        ({"preset": "own"}, "out of coco, ade20k, cityscapes, demo, custom in a file but got 'own'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_class_list_are_named(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_tables({"model": {"preset": "custom"} | model, "data": {"layout": "folder", "root": "x"}}, "a file")


FOLDERS = {
    "folder": ("labels", "images", ("", "")),
    "coco": ("train_label", "train_img", ("", "")),
    "ade20k": ("annotations/training", "images/training", ("", "")),
    "cityscapes": ("gtFine/train/a", "leftImg8bit/train/a", ("_gtFine_labelIds", "_leftImg8bit")),
}


def test_evaluate_reads_every_layout_that_training_reads(tmp_path: Path) -> None:
    assert tuple(FOLDERS) == LAYOUTS
    train(own_run(own_data(tmp_path / "data"), tmp_path / "out"))
    weights = tmp_path / "out/weights.safetensors"
    diversity = set()
    for layout, (labels, images, ends) in FOLDERS.items():
        root = own_data(tmp_path / layout, labels, images, ends)
        scored = spade(
            "evaluate",
            weights,
            "--data",
            root,
            "--layout",
            layout,
            "--styles",
            2,
            "--threads",
            1,
            "--json",
            tmp_path / "scores.json",
        )
        assert scored.exit_code == 0, scored.output
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert scores["images"] == 4
        diversity.add(json.dumps(scores["diversity"]))
        shutil.rmtree(root / labels)
        assert spade("evaluate", weights, "--data", root, "--layout", layout).exit_code == 1
    assert len(diversity) <= 1, "the layouts hold the same files"
    assert spade("evaluate", "--layout", "coco").exit_code == 2


def test_check_reads_model_layout_and_colours_from_a_configuration(tmp_path: Path) -> None:
    root = own_data(tmp_path / "data")
    file = tmp_path / "own.toml"
    file.write_text(
        f"[model]\npreset = 'custom'\nclasses = {json.dumps(NAMES[:2])}\n[data]\nlayout = 'folder'\nroot = 'x'\n"
    )
    result = spade("check", root, "--config", file, "--out", tmp_path / "sheet")
    assert result.exit_code == 1
    assert "expected ids 0..1 but got 2" in result.output
    file.write_text(file.read_text().replace("]\n[data]", ', "Wald"]\n[data]'))
    result = spade("check", root, "--config", file, "--out", tmp_path / "sheet")
    assert result.exit_code == 0, result.output
    assert " 1   Straße [B1] " in result.output
    assert spade("check", root, "--config", file, "--classes", 3).exit_code == 2
    drawn = spade("check", root, "--config", REPOSITORY / "configs/demo.toml")
    assert drawn.exit_code == 2
    assert "draws scenes" in drawn.output
