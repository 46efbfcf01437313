"""The styles benchmark: its command runs and measures every kind of request."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.model import styles
from kernels.isa import supported_isas
from spade_core.config import PRESETS


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_every_request_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "demo", replace(PRESETS["demo"], nf=4, height=64, width=64))
    monkeypatch.setattr(styles, "UNTIMED", 2)
    options = ["--preset", "demo", "--precision", "fp32", "--styles", "2", "--repeats", "2"]
    done = CliRunner().invoke(styles.main, [*options, "--json", str(tmp_path / "rows.json")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(r["request"], r["images"]) for r in rows] == [
        ("a new map", 1),
        ("the same map, another style", 1),
        ("a new map in several styles", 2),
        ("dense, PyTorch", 1),
    ]
    assert all(0 < r["seconds_min"] <= r["seconds_median"] <= r["seconds_max"] for r in rows)
