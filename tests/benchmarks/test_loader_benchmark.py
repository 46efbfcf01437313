"""The loader's benchmark: its command runs on files and on scenes, and counts steps by a training report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["coco", "demo"])
def test_rates_and_what_they_feed(tmp_path: Path, preset: str) -> None:
    step = {"name": "codebook", "precision": "fp32", "batch": 2, "seconds_median": 8.0}
    (tmp_path / "train.json").write_text(json.dumps({"rows": [step | {"name": "paper"}, step]}))
    options = ["--preset", preset, "--batches", "2", "--workers", "0,1", "--step", "train.json"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.training.loader", *options, "--json", "rows.json"], check=True, cwd=tmp_path
    )
    report = json.loads((tmp_path / "rows.json").read_text())
    assert report["step_images_per_s"] == {"fp32": 0.25}
    assert [row["workers"] for row in report["rows"]] == [0, 1]
    assert all(row["steps"] == pytest.approx(row["images_per_s"] / 0.25) for row in report["rows"])
