"""The editing benchmark: its command runs, checks the bits, and measures every stroke."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.editing.strokes import RADII_AND_LENGTHS, edits
from kernels.isa import supported_isas
from spade_core.config import preset


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_every_stroke_is_measured(tmp_path: Path) -> None:
    options = ["--preset", "ade20k", "--precision", "fp32", "--sizes", "96", "--strokes", "1", "--reference", "1"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.editing", *options, "--json", tmp_path / "rows.json"],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["size"], r["radius"], r["length"]) for r in report["rows"]] == [
        (96, *stroke) for stroke in RADII_AND_LENGTHS
    ]
    assert all(r["session_s"] > 0 and 0 < r["ratio_min"] <= r["ratio"] <= r["ratio_max"] for r in report["rows"])
    assert report["dense_pytorch_s"]["96"] > 0


def test_a_stroke_is_as_large_as_it_says() -> None:
    maps = [(np.full((1, 128, 128), 200, np.uint8), np.zeros((1, 128, 128), np.int32))]
    for edit in islice(edits(maps, 4, 20, preset("coco"), seed=0), 8):
        rows, columns = np.nonzero(edit.after[0][0] != 200)
        assert len(rows) == pytest.approx(2 * 4 * 20 + np.pi * 4**2, rel=0.1)
        assert min(rows.min(), columns.min()) >= 0
        assert edit.after[1] is not None
        assert edit.after[1].sum() == len(rows)
        assert (edit.before[0] == 200).all()
