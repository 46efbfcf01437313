"""The scaling benchmark: its command runs, and its noise is what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.model.scaling import noisy
from kernels.isa import supported_isas


def test_noise_replaces_the_share_of_pixels_it_is_asked_for() -> None:
    labels = np.full((1, 100, 100), 200, np.uint8)
    assert (noisy(labels, 0, 100) == labels).all()
    assert 0.08 < (noisy(labels, 0.1, 100) != labels).mean() < 0.12
    assert (noisy(labels, 1, 100) < 100).all()


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_every_axis_is_measured(tmp_path: Path) -> None:
    options = ["--precision", "fp32", "--batches", "1", "--sizes", "64", "--noise", "1", "--repeats", "1"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.model.scaling", *options, "--json", tmp_path / "points.json"],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    points = json.loads((tmp_path / "points.json").read_text())["points"]
    assert [p["axis"] for p in points] == ["batch", "size", "noise"]
    assert points[2]["distinct_share"] > 2 * points[0]["distinct_share"]
    assert all(p["seconds"] > 0 and p["dense_seconds"] > 0 for p in points)
