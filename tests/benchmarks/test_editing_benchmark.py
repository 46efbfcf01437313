"""The editing benchmark: its command runs, checks the bits, and measures every stroke."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.editing.counts import conv_share
from benchmarks.editing.run import Results, Row, Setting, main
from benchmarks.editing.strokes import LENGTHS, Edit, edits
from kernels.isa import supported_isas
from spade_core.config import PRESETS, preset


@pytest.mark.slow
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_every_stroke_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "ade20k", replace(PRESETS["ade20k"], nf=4))
    options = ["--preset", "ade20k", "--precision", "fp32", "--sizes", "96", "--strokes", "1"]

    def run(*more: str) -> dict[str, Any]:
        done = CliRunner().invoke(
            main, [*options, *more, "--json", str(tmp_path / "rows.json")], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        report: dict[str, Any] = json.loads((tmp_path / "rows.json").read_text())
        return report

    first = run("--radii", "4,8")
    assert [row["radius"] for row in first["rows"]] == [4, 8]
    report = run("--reference", "1")
    assert [(r["size"], r["radius"], r["length"]) for r in report["rows"]] == [(96, *one) for one in LENGTHS.items()]
    assert report["rows"][1:3] == first["rows"], "rows that are there are not measured again"
    assert all(0 < row["conv_share"] <= 1 for row in report["rows"])
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


def test_a_report_of_another_setting_is_not_added_to(tmp_path: Path) -> None:
    path, row = tmp_path / "rows.json", Row(256, 4, 20, 3, 0.5, 0.4, 0.1, 0.2, 0.3, 3.0, 2.0, 4.0)
    setting = Setting("coco", "fp32", "drawn", 3)
    Results(setting, path).add(row)
    again = Results(setting, path)
    assert again.rows == [row]
    assert (again.has(256, 4), again.has(512, 4)) == (True, False)
    with pytest.raises(click.UsageError, match=r"'strokes': 3.* name another file"):
        Results(replace(setting, strokes=4), path)


def test_the_share_of_the_convs_is_counted_from_what_the_stroke_reaches() -> None:
    config = replace(preset("ade20k"), height=512, width=512)
    before = np.zeros((1, 512, 512), np.uint8)

    def share(*pixels: tuple[int, int]) -> float:
        after = before.copy()
        for at in pixels:
            after[0][at] = 1
        return conv_share(Edit((before, None), (after, None)), config)

    assert share() == 0
    finest, coarsest = share((257, 257)), share((256, 256))  # a pixel of the last level, and one of all levels
    assert 0 < finest < 0.001
    assert 0.3 < coarsest < 1
    assert share((0, 0), (256, 256), (511, 511)) > coarsest
