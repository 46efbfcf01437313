"""Layouts: files that belong together are found, and a missing file is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spade_core.config import preset
from trainer.data.layouts import DataError, find_examples


def picture(path: Path, *, grey: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8) if grey else (8, 8, 3), np.uint8)).save(path)
    return path


def test_a_folder_is_searched_as_deep_as_it_goes(tmp_path: Path) -> None:
    labels = [picture(tmp_path / "labels" / name, grey=True) for name in ("b.png", "town/a.png")]
    images = [picture(tmp_path / "images" / name) for name in ("b.jpg", "town/a.png")]
    found = find_examples("folder", tmp_path, preset("demo"))
    assert [(e.labels, e.image, e.instances) for e in found] == [
        (labels[0], images[0], None),
        (labels[1], images[1], None),
    ]


def test_a_folder_in_any_spelling_is_read_and_its_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label = picture(tmp_path / "labels/a.PNG", grey=True)
    image = picture(tmp_path / "images/a.JPG")
    instance = picture(tmp_path / "elsewhere/a.Png", grey=True)
    (tmp_path / "instances").symlink_to(tmp_path / "elsewhere")
    for name in ("labels/._a.png", "images/._a.jpg", "images/.DS_Store"):
        (tmp_path / name).touch()
    picture(tmp_path / "images/alone.png")
    (one,) = find_examples("folder", tmp_path, replace(preset("demo"), instance_edges=True))
    assert (one.labels, one.image) == (label, image)
    assert one.instances is not None
    assert one.instances.samefile(instance)
    assert "labels'; left out: 1 with a name that begins with a dot" in caplog.text
    assert "images'; left out: 2 with a name that begins with a dot" in caplog.text
    assert "1 photos in" in caplog.text
    assert "have no label map and are left out: first 'alone'" in caplog.text


def test_coco(tmp_path: Path) -> None:
    label = picture(tmp_path / "train_label/000000000009.png", grey=True)
    image = picture(tmp_path / "train_img/000000000009.jpg")
    instance = picture(tmp_path / "train_inst/000000000009.png", grey=True)
    (one,) = find_examples("coco", tmp_path, preset("coco"))
    assert (one.labels, one.image, one.instances) == (label, image, instance)


def test_coco_takes_the_portrait_folders_too(tmp_path: Path) -> None:
    for twin in ("", "_portrait"):
        for kind, suffix in (("label", ".png"), ("img", ".jpg"), ("inst", ".png")):
            picture(tmp_path / f"train_{kind}{twin}" / f"1{twin}{suffix}", grey=kind != "img")
    found = find_examples("coco", tmp_path, preset("coco"))
    assert [one.labels.parent.name for one in found] == ["train_label", "train_label_portrait"]
    assert [one.image.parent.name for one in found] == ["train_img", "train_img_portrait"]
    assert [one.instances.parent.name for one in found if one.instances] == ["train_inst", "train_inst_portrait"]
    (tmp_path / "train_img_portrait/1_portrait.jpg").unlink()
    with pytest.raises(DataError, match=r"expected an image for the label map '.*train_label_portrait/1_portrait.png'"):
        find_examples("coco", tmp_path, preset("coco"))


def test_ade20k(tmp_path: Path) -> None:
    label = picture(tmp_path / "annotations/training/ADE_train_00000001.png", grey=True)
    image = picture(tmp_path / "images/training/ADE_train_00000001.jpg")
    (one,) = find_examples("ade20k", tmp_path, preset("ade20k"))
    assert (one.labels, one.image, one.instances) == (label, image, None)


def test_cityscapes_pairs_by_the_name_before_the_kind(tmp_path: Path) -> None:
    name = "aachen/aachen_000000_000019"
    label = picture(tmp_path / f"gtFine/train/{name}_gtFine_labelIds.png", grey=True)
    picture(tmp_path / f"gtFine/train/{name}_gtFine_color.png")
    instance = picture(tmp_path / f"gtFine/train/{name}_gtFine_instanceIds.png", grey=True)
    image = picture(tmp_path / f"leftImg8bit/train/{name}_leftImg8bit.png")
    (one,) = find_examples("cityscapes", tmp_path, preset("cityscapes"))
    assert (one.labels, one.image, one.instances) == (label, image, instance)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    demo = preset("demo")
    with pytest.raises(
        DataError, match=r"expected the folder '.*train_label' \(layout 'coco'\) but '.*' holds nothing"
    ):
        find_examples("coco", tmp_path, preset("coco"))
    with pytest.raises(DataError, match=r"nowhere' does not exist; give data.root"):
        find_examples("folder", tmp_path / "nowhere", demo)
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"expected label maps \(\*.png\) in '.*labels' but found none"):
        find_examples("folder", tmp_path, demo)
    picture(tmp_path / "labels/a.png", grey=True)
    with pytest.raises(DataError, match=r"expected an image for the label map '.*a.png' as '.*images/a' with one of"):
        find_examples("folder", tmp_path, demo)
    picture(tmp_path / "images/a.jpg")
    (tmp_path / "instances").mkdir()
    with pytest.raises(DataError, match=r"expected an instance map '.*instances/a.png'"):
        find_examples("folder", tmp_path, replace(demo, instance_edges=True))
