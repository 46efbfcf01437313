"""Every reader of label and instance files resizes by Pillow's NEAREST, and the style of a photo is filtered first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from serving.cli.jobs import Job, synthesize_local
from serving.cli.main import main
from serving.engines.contract import Engine, Inputs
from serving.engines.timings import Timings
from serving.requests.images import decode_maps
from spade_core.config import preset
from spade_core.files.checkpoints import save
from spade_core.maps.drawn import demo_map
from spade_core.maps.samples import read_maps
from spade_core.models.seeded import seeded_encoder, seeded_generator
from spade_core.types import Images
from trainer.evaluation.evaluate import folder_examples

Array = npt.NDArray[Any]
CONFIG = replace(preset("coco"), nf=2, height=64, width=96)
HEIGHT, WIDTH = 256, 333  # one side is an even multiple of the model's, the other is an odd ratio


class Recorder(Engine):
    """An engine that keeps the maps it is given."""

    config = CONFIG
    seen: tuple[Array, Array]

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        assert inputs.instances is not None
        assert timings is None
        self.seen = inputs.labels[0], inputs.instances[0]
        return np.zeros((*inputs.labels.shape, 3), np.uint8)


def by_synthesize(root: Path) -> tuple[Array, Array]:
    engine = Recorder()
    job = Job(root / "labels/a.png", root / "instances/a.png", root / "out/a.png")
    options: dict[str, Any] = {"style": None, "colours": None, "batch": 1, "image_format": "png"}
    assert synthesize_local(engine, [job], done=lambda _job, _failure: None, **options) == []
    return engine.seen


def by_request(root: Path) -> tuple[Array, Array]:
    files = [np.frombuffer((root / name).read_bytes(), np.uint8)[None] for name in ("labels/a.png", "instances/a.png")]
    maps = decode_maps(files[0], files[1], CONFIG)
    return maps["labels"][0], maps["instances"][0]


def by_samples(root: Path) -> tuple[Array, Array]:
    (root / "label").symlink_to(root / "labels")
    (root / "inst").symlink_to(root / "instances")
    maps = read_maps(CONFIG, root, 1)
    assert maps.instances is not None
    return maps.labels[0], maps.instances[0]


def by_evaluation(root: Path) -> tuple[Array, Array]:
    (root / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images/a.png")
    one = next(folder_examples(CONFIG, root, None)[1])
    assert one.instances is not None
    return one.labels, one.instances


@pytest.mark.parametrize("read", [by_synthesize, by_request, by_samples, by_evaluation])
def test_files_are_resized_by_pillows_nearest(read: Callable[[Path], tuple[Array, Array]], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wanted = []
    for name, top, dtype in (("labels", 182, np.uint8), ("instances", 60_000, np.uint16)):
        (tmp_path / name).mkdir()
        pixels = random.integers(0, top, (HEIGHT, WIDTH)).astype(dtype)
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
        small = Image.fromarray(pixels.astype(np.int32)).resize((CONFIG.width, CONFIG.height), Image.Resampling.NEAREST)
        wanted.append(np.asarray(small))
    labels, instances = read(tmp_path)
    np.testing.assert_array_equal(labels, wanted[0])
    np.testing.assert_array_equal(instances, wanted[1])


def test_a_large_style_photo_gives_the_image_of_its_bicubic_reduction(tmp_path: Path) -> None:
    config = replace(preset("demo"), nf=2)
    save(tmp_path / "w.safetensors", seeded_generator(config), seeded_encoder(2))
    Image.fromarray(demo_map(0, config)[0]).save(tmp_path / "map.png")
    photo = Image.effect_noise((1024, 1024), 90).convert("RGB")
    photo.save(tmp_path / "large.png")
    photo.resize((256, 256), Image.Resampling.BICUBIC).save(tmp_path / "small.png")
    images = []
    for name in ("large", "small"):
        out = tmp_path / "out" / name
        command = ["synthesize", tmp_path / "map.png", "--weights", tmp_path / "w.safetensors", "--precision", "fp32"]
        command += ["--style", tmp_path / f"{name}.png", "--out", out]
        assert CliRunner().invoke(main, [str(part) for part in command], catch_exceptions=False).exit_code == 0
        images.append((out / "map.png").read_bytes())
    assert images[0] == images[1]
