"""The plan benchmark times only plans that agree with the specification, and its file has the agreed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import benchmarks.cpu_kernels.plan
from benchmarks.cpu_kernels.plan import main, measure
from kernels.ops.plan import Level, Sizes, plan
from spade_core.config import preset
from spade_core.types import Symbols


def test_drawn_maps_are_said_to_be_drawn_and_every_level_has_its_shares(tmp_path: Path) -> None:
    out = tmp_path / "new" / "plan.json"
    done = CliRunner().invoke(
        main, ["--preset", "demo", "--count", "2", "--repeats", "2", "--numpy-repeats", "1", "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "drawn maps: no --labels given" in done.output
    report = json.loads(out.read_text())
    assert report["labels"] == "drawn"
    assert len(report["rows"]) == 2
    for row in report["rows"]:
        assert list(row["share5"]) == ["8x8", "16x16", "32x32", "64x64", "128x128", "256x256"]
        assert all(0 < row["share3"][size] <= row["share5"][size] <= 1 for size in row["share5"])
        assert row["ratio"] == pytest.approx(row["numpy_ms_median"] / row["native_ms_median"])
        assert row["native_ms_min"] <= row["native_ms_median"]


def test_a_folder_of_maps_is_read(tmp_path: Path, real_maps: Path) -> None:
    out = tmp_path / "plan.json"
    arguments = [
        "--labels",
        str(real_maps),
        "--count",
        "1",
        "--repeats",
        "1",
        "--numpy-repeats",
        "1",
        "--json",
        str(out),
    ]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert json.loads(out.read_text())["labels"] == real_maps.resolve().name


def test_a_kernel_that_differs_from_the_specification_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(symbols: Symbols, sizes: Sizes, n_symbols: int, kernel_size: int) -> list[Level]:
        levels = plan(symbols, sizes, n_symbols, kernel_size)
        return [*levels[:-1], replace(levels[-1], index=levels[-1].index + 1)]

    monkeypatch.setattr(benchmarks.cpu_kernels.plan, "plan", wrong)
    with pytest.raises(RuntimeError, match=r"the specification's index but got another on map 3, level 32x32; run the"):
        measure(3, np.zeros((32, 32), np.uint16), replace(preset("demo"), height=32, width=32), 1, 1)
