"""The scaling benchmark: its command runs, and its noise replaces the share of pixels that it is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.model import scaling
from benchmarks.model.scaling import noisy
from kernels.isa import supported_isas
from spade_core.config import preset


def test_noise_replaces_the_share_of_pixels_it_is_asked_for() -> None:
    labels = np.full((1, 100, 100), 200, np.uint8)
    assert (noisy(labels, 0, 100) == labels).all()
    assert 0.08 < (noisy(labels, 0.1, 100) != labels).mean() < 0.12
    assert (noisy(labels, 1, 100) < 100).all()


@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_every_axis_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "preset", lambda name: replace(preset(name), nf=4, height=128, width=128))
    options = ["--precision", "fp32", "--batches", "1", "--sizes", "64", "--noise", "1", "--repeats", "1"]
    arguments = [*options, "--json", str(tmp_path / "points.json")]
    assert CliRunner().invoke(scaling.main, arguments, catch_exceptions=False).exit_code == 0
    points = json.loads((tmp_path / "points.json").read_text())["points"]
    assert [p["axis"] for p in points] == ["batch", "size", "noise"]
    assert points[2]["distinct_share"] > 2 * points[0]["distinct_share"]
    assert all(p["seconds"] > 0 and p["dense_seconds"] > 0 for p in points)
