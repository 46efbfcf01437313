"""Validation in training: scores on held-out images, the best weights, curves, and grids of held-out maps."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_run import small
from torch import Tensor, nn

from spade_core.config import ConfigError
from spade_core.files.weights import info
from trainer.config import TrainConfig
from trainer.data.dataset import Stream
from trainer.loop import train
from trainer.output.logs import read_rows
from trainer.output.samples import choose_samples
from trainer.scenes.files import write_scenes
from trainer.validation import is_best


class Means(nn.Module):
    """Features for FID: the mean of each channel in each quarter of the image."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class Sky(nn.Module):
    """Finds sky everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros_like(images[:, 0]).long()


def scripted(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judge") / "means.pt"
    return scripted(Means(), path)


def validating(out: Path, inception: Path, **change: Any) -> TrainConfig:
    table = {"steps": 2, "images": 4, "inception": str(inception)} | change
    return small(out, validation=table, run={"sample_steps": 4})


def test_scores_are_written_and_the_best_weights_kept(tmp_path: Path, inception: Path) -> None:
    train(validating(tmp_path, inception, best="fid"))
    rows = read_rows(tmp_path / "validation.jsonl")
    assert [(row["step"], row["images"]) for row in rows] == [(2, 4), (4, 8)]
    for row in rows:
        assert 0 <= row["miou"] < row["miou_real"] <= 1
        assert 0 <= row["pixel_accuracy"] < row["pixel_accuracy_real"] <= 1
        assert row["fid"] > 0
    best = min(rows, key=lambda row: row["fid"])
    assert info(tmp_path / "best.safetensors").metadata["steps"] == str(best["step"])
    report = (tmp_path / "report.html").read_text()
    assert f"best.safetensors: FID {best['fid']:.3f} at step {best['step']}" in report
    assert all(f"<figcaption>{name}</figcaption>" in report for name in ("mIoU", "Pixel accuracy", "FID"))


def test_a_resumed_run_validates_on(tmp_path: Path, inception: Path) -> None:
    train(small(tmp_path, data={"scenes": 4}))
    train(validating(tmp_path, inception))
    assert [row["step"] for row in read_rows(tmp_path / "validation.jsonl")] == [4]
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("score", "values", "best"),
    [
        ("miou", [0.1], True), ("miou", [0.1, 0.2], True), ("miou", [0.2, 0.1], False), ("miou", [0.2, 0.2], False),
        ("fid", [9.0, 8.0], True), ("fid", [8.0, 9.0], False), ("fid", [8.0, None], False), ("fid", [None, 9.0], True),
    ],
)  # fmt: skip
def test_the_best_is_a_larger_miou_or_a_smaller_fid(score: str, values: list[Any], best: bool) -> None:
    assert is_best([{"step": i, score: value} for i, value in enumerate(values)], score) == best
    assert not is_best([], score)


def held_out(folder: Path, **change: Any) -> dict[str, dict[str, Any]]:
    """Two data sets of scenes as files, one to train on and one held out."""
    for name, seed in (("train", 0), ("held-out", 50)):
        list(write_scenes(folder / name, 3, height=32, width=32, seed=seed, style=None))
    return {
        "data": {"layout": "folder", "root": str(folder / "train")},
        "validation": {"root": str(folder / "held-out"), "steps": 1, "images": 2} | change,
    }


def test_a_folder_is_held_out_for_scores_and_grids(tmp_path: Path) -> None:
    scripted(Sky(), tmp_path / "sky.pt")
    (tmp_path / "ids.json").write_text("[0]")
    tables = held_out(
        tmp_path, segmentation=str(tmp_path / "sky.pt"), segmentation_classes=str(tmp_path / "ids.json"),
        segmentation_size=16, segmentation_input="unit",
    )  # fmt: skip
    config = small(tmp_path / "run", **tables)
    train(config)
    row = read_rows(tmp_path / "run" / "validation.jsonl")[-1]
    assert row["miou"] == row["pixel_accuracy"] == 1, "only pixels of the sky count"
    assert "fid" not in row
    shown, own = (choose_samples(Stream(one), one) for one in (config, small(**{**tables, "validation": {}})))
    assert not np.array_equal(shown.maps, own.maps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"validation": {"steps": 5, "root": "x"}},
            "expected no validation.root, since `scenes` are drawn, but",
        ),
        ({"validation": {"steps": 5, "best": "fid"}}, "expected validation.inception, a network that gives the score"),
        (
            {"data": {"layout": "folder", "root": "x"}, "validation": {"steps": 5}},
            "expected validation.root to be a folder but got ''",
        ),
        (
            {"data": {"layout": "folder", "root": "x"}, "validation": {"steps": 5, "root": "y"}},
            "expected validation.segmentation, a network that gives the score of validation.best 'miou'",
        ),
    ],
)
def test_what_a_validation_lacks_is_said_before_training(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**change)


def test_a_bad_judge_ends_the_run_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "judge.pt").write_text(json.dumps([]))
    with pytest.raises(ValueError, match="expected a readable TorchScript file"):
        train(small(tmp_path / "run", validation={"steps": 2, "segmentation": str(tmp_path / "judge.pt")}))
    assert not read_rows(tmp_path / "run" / "statistics.jsonl")
