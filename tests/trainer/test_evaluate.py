"""`spade evaluate`: real scenes score high, an untrained generator low, and every number is the formula's."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from serving.cli.main import main
from spade_core.config import DEMO_WEIGHTS, preset
from spade_core.files.checkpoints import save
from spade_core.maps.colours import DEMO_COLOURS, class_palette, draw
from spade_core.maps.label_maps import prepare
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.registry import ablation, new_generator
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed
from trainer.data.preprocess import Pixels
from trainer.evaluation.evaluate import (
    FEATURE_DISTANCE,
    PIXEL_DISTANCE,
    Evaluation,
    Judges,
    Sampling,
    evaluate,
    scene_examples,
)
from trainer.evaluation.judges import InceptionFile, feature_file, scenes_segmentation
from trainer.evaluation.segmentation import Piece, load_segmentation, train
from trainer.evaluation.segmentation import save as save_segmentation

TINY = replace(preset("demo"), nf=2, height=64, width=64)
NOBODY = Judges()
# Eigenvalues in float64 of 3 x 3 covariances of numbers up to 255, squared.
FID_TOLERANCE = 1e-6


class Means(nn.Module):
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        return images.double().mean((2, 3)) if return_features else images.mean((2, 3))


class Layers(nn.Module):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [images, images[:, :, ::2, ::2]]


def scripted(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), path)
    return path


def scored(generator: Generator, judges: Judges = NOBODY, *, count: int = 4, styles: int = 0) -> Evaluation:
    """The scores of the first `count` scenes, three images at once, styles from seed 5 on."""
    return evaluate(generator, scene_examples(TINY, count), judges, Sampling(5, 3, styles, diversity_maps=2))


def images_of(generator: Generator, examples: list[Pixels], seeds: list[int]) -> Tensor:
    """The images of the examples, drawn by the dense form."""
    symbols = prepare(np.stack([one.labels for one in examples]), None, TINY)
    style = torch.from_numpy(np.stack([style_from_seed(s) for s in seeds]))
    with torch.no_grad():
        image = torch.tanh(synthesize_dense(generator, torch.from_numpy(symbols.astype(np.int32)), style))
    return ((image + 1) * 127.5).to(torch.uint8)


def test_the_shipped_network_knows_scenes_and_an_untrained_generator_draws_none() -> None:
    found = scored(seeded_generator(TINY), Judges(scenes_segmentation()), count=12)
    assert found.images == 12
    assert found.real is not None
    assert found.generated is not None
    assert found.real.pixels == 12 * 64 * 64
    assert found.real.miou > 0.5
    assert found.real.pixel_accuracy > 0.85
    assert found.generated.miou < 0.15


def test_labels_the_judge_does_not_know_are_not_counted() -> None:
    examples = list(scene_examples(TINY, 2))
    sky = sum(int((one.labels == 0).sum()) for one in examples)

    def all_sky(images: Tensor) -> Tensor:
        return torch.zeros(len(images), 64, 64, dtype=torch.int64)

    found = scored(seeded_generator(TINY), Judges(all_sky, label_ids=[0]), count=2)
    assert found.real is not None
    assert found.real.pixels == sky
    assert found.real.pixel_accuracy == 1


def test_fid_is_frechets_distance_of_the_features(tmp_path: Path) -> None:
    generator = seeded_generator(TINY)
    found = scored(generator, Judges(inception=InceptionFile(scripted(Means(), tmp_path / "means.pt"))), count=8)
    examples = list(scene_examples(TINY, 8))
    fake = images_of(generator, examples, list(range(5, 13))).double().mean((2, 3)).numpy()
    real = np.stack([one.image for one in examples]).astype(np.float64).mean((1, 2))
    covariances = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    # sqrtm(A B) has the trace of sqrtm(sqrtm(A) B sqrtm(A)), which is symmetric.
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(values) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root)).sum()
    wanted = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(sum(covariances)) - 2 * trace
    assert found.fid is not None
    # A pixel may round the other way in the codebook form.
    assert abs(found.fid - wanted) <= FID_TOLERANCE * wanted + 0.01


def test_fid_of_one_image_is_refused(tmp_path: Path) -> None:
    judges = Judges(inception=InceptionFile(scripted(Means(), tmp_path / "means.pt")))
    with pytest.raises(ValueError, match="expected two images or more for FID but got 1"):
        scored(seeded_generator(TINY), judges, count=1)


def test_diversity_is_the_mean_distance_of_pairs_of_one_map(tmp_path: Path) -> None:
    generator, examples = seeded_generator(TINY), list(scene_examples(TINY, 2))
    found = scored(generator, styles=3).diversity
    assert found is not None
    assert (found.distance, found.maps, found.styles) == (PIXEL_DISTANCE, 2, 3)
    values = []
    for one in examples:
        images = images_of(generator, [one] * 3, [5, 6, 7]).numpy().astype(np.float64)
        values += [np.abs(images[i] - images[j]).mean() / 255 for i, j in ((0, 1), (0, 2), (1, 2))]
    assert abs(found.value - np.mean(values)) <= 1e-4, "a pixel in a thousand may round the other way"
    judges = Judges(features=feature_file(scripted(Layers(), tmp_path / "l.pt")))
    by_features = scored(generator, judges, styles=3).diversity
    assert by_features is not None
    assert by_features.distance == FEATURE_DISTANCE
    assert by_features.value > 0


def test_a_model_without_style_has_no_diversity() -> None:
    assert scored(seeded_generator(replace(TINY, style=False)), styles=3).diversity is None


# ---- The segmentation network ----


def test_training_repeats_and_its_file_is_the_network(tmp_path: Path) -> None:
    losses: list[list[float]] = [[], []]
    networks = [train(2, 2, 3, lambda _step, loss, to=to: to.append(loss)) for to in losses]  # type: ignore[misc]
    assert losses[0] == losses[1]
    assert networks[0] is not None
    assert networks[1] is not None
    save_segmentation(networks[0], tmp_path / "s.safetensors")
    loaded, image = load_segmentation(tmp_path / "s.safetensors"), torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        assert loaded(image).shape == (1, 16, 64, 64)
    for key, tensor in networks[1].state_dict().items():
        kept = tensor if "running_" in key or "num_batches" in key else tensor.bfloat16().float()
        assert torch.equal(loaded.state_dict()[key], kept) or "num_batches" in key


def test_training_in_pieces_gives_the_network_of_a_training_in_one(tmp_path: Path) -> None:
    taken: list[int] = []

    def note(step: int, _loss: float) -> None:
        taken.append(step)

    whole, state = train(3, 2, 5, lambda _step, _loss: None), tmp_path / "half.state"
    assert train(3, 2, 5, note, piece=Piece(state, lambda: len(taken) == 1)) is None
    assert train(3, 2, 5, note, piece=Piece(state, lambda: len(taken) == 2)) is None
    found = train(3, 2, 5, note, piece=Piece(state, lambda: False))
    assert taken == [0, 1, 2]
    assert whole is not None
    assert found is not None
    for key, tensor in whole.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key


# ---- The command ----


def spade(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], env={"COLUMNS": "120"})


def test_the_command_scores_a_baseline_and_writes_json(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(tmp_path / "w.safetensors", new_generator(ablation(TINY, "pix2pixhd")))
    result = spade(tmp_path / "w.safetensors", "--count", 2, "--json", tmp_path / "new" / "scores.json")
    assert result.exit_code == 0, result.output
    for text in ("mIoU", "pixel accuracy", "IoU of sky", "real images"):
        assert text in result.output
    scores = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert scores["architecture"] == "pix2pixhd"
    assert scores["images"] == 2
    assert 0 <= scores["generated"]["miou"] <= 1
    assert scores["real"]["class_iou"]["sky"] > 0.5
    assert scores["diversity"] is None


def test_the_command_reads_a_folder_and_label_ids(tmp_path: Path) -> None:
    for name in ("labels", "images"):
        (tmp_path / name).mkdir()
    for i, one in enumerate(scene_examples(replace(TINY, height=96, width=96), 2)):
        Image.fromarray(one.labels).save(tmp_path / "labels" / f"{i}.png")
        Image.fromarray(one.image).save(tmp_path / "images" / f"{i}.jpg")
    save(tmp_path / "w.safetensors", seeded_generator(TINY))
    (tmp_path / "ids.json").write_text("[0, 6, 7]")

    class SkyOnly(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([torch.ones_like(images[:, :1]), torch.zeros_like(images[:, :2])], dim=1)

    judge = scripted(SkyOnly(), tmp_path / "judge.pt")
    arguments = (
        tmp_path / "w.safetensors", "--data", tmp_path, "--segmentation", judge, "--segmentation-size", 32,
        "--segmentation-classes", tmp_path / "ids.json", "--json", tmp_path / "scores.json",
    )  # fmt: skip
    result = spade(*arguments)
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["real"]["class_iou"]) <= {"sky", "grass", "tree"}
    assert scores["real"]["class_iou"]["sky"] == scores["real"]["pixel_accuracy"]
    assert scores["diversity"]["styles"] == 4

    for path in (tmp_path / "labels").iterdir():
        with Image.open(path) as image:
            painted = draw(np.asarray(image), class_palette(TINY))
        Image.fromarray(painted).save(path)
    result = spade(*arguments)
    assert result.exit_code == 1
    assert "no colour table; give one" in result.output
    result = spade(*arguments, "--colours", DEMO_COLOURS)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


def test_wrong_usage_and_bad_files_are_told(tmp_path: Path) -> None:
    assert spade(DEMO_WEIGHTS, "--preset", "demo").exit_code == 2
    coco = spade("--preset", "coco")
    assert coco.exit_code == 2
    assert "give --data" in coco.output
    (tmp_path / "w.safetensors").write_text("no")
    broken = spade(tmp_path / "w.safetensors")
    assert broken.exit_code == 1
    assert "expected a whole safetensors file" in broken.output
    assert "--colours: scenes hold ids" in spade("--preset", "demo", "--colours", DEMO_COLOURS).output
    empty = spade("--preset", "demo", "--data", tmp_path)
    assert empty.exit_code == 1
    assert "labels" in empty.output
    (tmp_path / "ids.json").write_text("{}")
    ids = spade("--preset", "demo", "--segmentation-classes", tmp_path / "ids.json")
    assert ids.exit_code == 1
    assert "expected a JSON list of label ids" in ids.output
    (tmp_path / "ids.json").write_text("[1]")
    assert spade("--preset", "demo", "--segmentation-classes", tmp_path / "ids.json").exit_code == 2
    assert spade("--preset", "demo", "--segmentation-mean", "1,2").exit_code == 2
