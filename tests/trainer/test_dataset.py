"""The stream of training images: a position gives one image in any process, and a batch brings its plan."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import small

from kernels.ops.plan import plan
from spade_core.maps.colours import DEMO_COLOURS, class_palette, draw
from trainer.data.dataset import Positions, Stream, collate, loader, read_example
from trainer.data.layouts import DataError, Example
from trainer.output.samples import choose_samples
from trainer.scenes.files import write_scenes


def test_a_position_is_the_same_image_every_time() -> None:
    stream = Stream(small())
    first, again, other = stream[5], Stream(small())[5], stream[6]
    assert (first.image == again.image).all()
    assert (first.noise == again.noise).all()
    assert (first.image != other.image).any()
    assert (Stream(small(run={"seed": 1}))[5].noise != first.noise).any()


def test_an_epoch_of_a_folder_is_every_example_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    list(write_scenes(tmp_path, 6, height=32, width=32, seed=0, style=None))
    stream = Stream(small(data={"layout": "folder", "root": str(tmp_path), "flip": False}))
    assert stream.epoch == 6
    epochs = [[stream[p].labels.tobytes() for p in range(6 * e, 6 * e + 6)] for e in range(3)]
    assert all(set(epoch) == set(epochs[0]) and len(set(epoch)) == 6 for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_processes_share_the_positions_of_one_with_a_larger_batch() -> None:
    alone = list(Positions(8, 24, 0, 1, 4))
    shared = [a + b for a, b in zip(Positions(8, 24, 0, 2, 2), Positions(8, 24, 1, 2, 2), strict=True)]
    assert alone == shared
    assert len(Positions(0, 10, 0, 1, 4)) == 2, "a batch that is not full is left out"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_bring_their_plan_in_order(workers: int) -> None:
    config = small()
    batches = list(loader(Stream(config), config, Positions(0, 6, 0, 1, 2), workers))
    assert len(batches) == 3
    for i, batch in enumerate(batches):
        items = [Stream(config)[2 * i], Stream(config)[2 * i + 1]]
        assert (batch.images.numpy().transpose(0, 2, 3, 1) == np.stack([one.image for one in items])).all()
        assert (batch.symbols.numpy() == np.stack([one.symbols for one in items])).all()
        (level,) = plan(np.stack([one.symbols for one in items]), [(32, 32)], 16, 3)
        assert torch.equal(batch.levels[32, 32].index, torch.from_numpy(level.index))
        assert len(batch.levels) == 6


def test_the_dense_form_has_no_plan() -> None:
    config = small(networks={"form": "dense"})
    assert next(loader(Stream(config), config, Positions(0, 2, 0, 1, 2), 0)).levels == {}


def test_cityscapes_license_plates_are_unlabeled(tmp_path: Path) -> None:
    for folder, name in (
        ("gtFine", "gtFine_labelIds"),
        ("gtFine", "gtFine_instanceIds"),
        ("leftImg8bit", "leftImg8bit"),
    ):
        path = tmp_path / folder / "train/ulm" / f"ulm_0_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((64, 128), 255, np.uint8)
        Image.fromarray(pixels if folder == "gtFine" else pixels[..., None].repeat(3, 2)).save(path)
    model = {"preset": "cityscapes", "nf": 2, "height": 64, "width": 128}
    data = {"layout": "cityscapes", "root": str(tmp_path)}
    assert (Stream(small(model=model, data=data))[0].labels == 0).all()
    # A model with 256 classes has a class of its own for 255.
    assert (Stream(small(model=model | {"label_nc": 256}, data=data))[0].labels == 255).all()


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    list(write_scenes(tmp_path, 1, height=32, width=32, seed=0, style=None))
    stream = Stream(small(data={"layout": "folder", "root": str(tmp_path)}))
    Image.new("RGB", (64, 32)).save(tmp_path / "images/000000.png")
    with pytest.raises(
        DataError, match=r"expected '.*images/000000.png' to have the aspect of its label map, 32x32, but"
    ):
        stream[0]
    with pytest.raises(DataError, match=r"^\[data\] expected '.*' to have the aspect .* are the two a pair\?$"):
        next(loader(stream, small(), Positions(0, 2, 0, 1, 2), workers=1))
    assert multiprocessing.active_children() == []
    whole = (tmp_path / "instances/000000.png").read_bytes()  # any PNG will do
    (tmp_path / "images/000000.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"expected readable files but got an error at '.*images/000000.png'"):
        stream[0]
    (tmp_path / "labels/000000.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"expected readable files but got an error at '.*labels/000000.png'"):
        stream[0]


def test_a_turned_photo_is_read_upright_beside_its_label_map(tmp_path: Path) -> None:
    labels = np.zeros((48, 32), np.uint8)
    labels[:, 16:] = 1
    upright = Image.fromarray(np.repeat(labels[..., None] * 255, 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: to be turned by 90 degrees to the right
    Image.fromarray(labels).save(tmp_path / "labels.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photo.png", exif=exif)
    pixels = read_example(Example(tmp_path / "labels.png", tmp_path / "photo.png", None), small().model)
    np.testing.assert_array_equal(pixels.image[..., 0], labels * 255)


def test_a_16_bit_photo_is_not_white(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "labels.png")
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "photo.png")
    pixels = read_example(Example(tmp_path / "labels.png", tmp_path / "photo.png", None), small().model)
    assert (pixels.image == 128).all()


@pytest.mark.parametrize("mode", ["fixed", "crop"])
def test_a_photo_of_another_size_is_resampled_once(tmp_path: Path, mode: str) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (130, 128, 3), np.uint8)
    side = 32 if mode == "crop" else 48
    for name, pixels in (("labels", np.zeros((side, side), np.uint8)), ("images", photo)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    stream = Stream(small(data={"layout": "folder", "root": str(tmp_path), "preprocess": mode, "flip": False}))
    expected = Image.fromarray(photo).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(stream[0].image, np.asarray(expected))


def test_label_maps_in_colours_are_trained_on_through_a_table(tmp_path: Path) -> None:
    list(write_scenes(tmp_path, 2, height=32, width=32, seed=0, style=None))
    data = {"layout": "folder", "root": str(tmp_path), "flip": False}
    expected = [Stream(small(data=data))[i].labels for i in range(2)]
    for path in (tmp_path / "labels").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(draw(labels, class_palette(small().model))).save(path)
    with pytest.raises(DataError, match=r"data\.colours in training"):
        Stream(small(data=data))[0]
    stream = Stream(small(data=data | {"colours": str(DEMO_COLOURS)}))
    np.testing.assert_array_equal([stream[i].labels for i in range(2)], expected)


def test_maps_that_do_not_fit_are_named(tmp_path: Path) -> None:
    list(write_scenes(tmp_path, 1, height=32, width=32, seed=0, style=None))
    data = {"layout": "folder", "root": str(tmp_path), "preprocess": "crop"}
    edges = Stream(small(model={"instance_edges": True}, data=data))
    Image.new("L", (64, 32)).save(tmp_path / "instances/000000.png")
    with pytest.raises(DataError, match=r"expected '.*instances/000000.png' to have the size of its label map, 32x32,"):
        edges[0]
    Image.new("L", (32, 32), 99).save(tmp_path / "labels/000000.png")
    with pytest.raises(DataError, match=r"99.*; the label map is '.*labels/000000.png'"):
        Stream(small(data=data))[0]


def test_images_of_two_sizes_do_not_make_a_batch(tmp_path: Path) -> None:
    for seed, side in ((0, 32), (1, 64)):
        list(write_scenes(tmp_path, 1, height=side, width=side, seed=seed, style=None))
    config = small(model={"style": False}, data={"layout": "folder", "root": str(tmp_path), "preprocess": "none"})
    stream = Stream(config)
    with pytest.raises(DataError, match=r"expected images of one size in a batch but got \[\(32, 32\), \(64, 64\)\]"):
        collate([stream[0], stream[1]], config.model, planned=True)
    assert choose_samples(stream, config).images.shape == (2, 32, 32, 3), "a sample grid has the model's size"
