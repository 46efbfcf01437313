"""The styles benchmark: its command runs and measures every kind of request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.isa import supported_isas


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_every_request_is_measured(tmp_path: Path) -> None:
    options = ["--preset", "demo", "--precision", "fp32", "--styles", "2", "--repeats", "2"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.model.styles", *options, "--json", tmp_path / "rows.json"],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(r["request"], r["images"]) for r in rows] == [
        ("a new map", 1),
        ("the same map, another style", 1),
        ("a new map in several styles", 2),
        ("dense, PyTorch", 1),
    ]
    assert all(0 < r["seconds_min"] <= r["seconds_median"] <= r["seconds_max"] for r in rows)
