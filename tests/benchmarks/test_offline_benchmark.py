"""The benchmark of offline batches: the rule of its rate, and that its command measures Ray beside plain processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.offline.plain import Finished
from benchmarks.offline.run import main, steady_rate
from spade_core.config import preset
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator


def test_a_rate_counts_while_every_worker_draws() -> None:
    """Worker a draws a batch of two a second, worker b one of two in two seconds, and starts and ends later."""
    of_a = [Finished(10.0 + turn, "a", 2) for turn in range(7)]
    of_b = [Finished(12.5 + 2 * turn, "b", 2) for turn in range(4)]
    finished = sorted([*of_a, *of_b], key=lambda one: one.at_s)
    assert steady_rate(finished, 2) == pytest.approx((4 + 1) * 2 / 3.5)  # from 12.5 to 16


def test_a_turn_in_which_a_worker_drew_nothing_is_refused() -> None:
    with pytest.raises(click.ClickException, match="2 workers to draw side by side but 1 drew 3 batches"):
        steady_rate([Finished(float(turn), "a", 1) for turn in range(3)], 2)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_ray_is_measured_beside_plain_processes(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    save(tmp_path / "w.safetensors", seeded_generator(replace(preset("demo"), nf=4, height=64, width=64)))
    options = ["--images", "8", "--batch", "2", "--rounds", "1", "--ways", "1x1", "--precision", "fp32",
               "--weights", "w.safetensors"]  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.offline", *options, "--json", "rows.json"]
    subprocess.run(command, check=True, cwd=tmp_path)
    report = json.loads((tmp_path / "rows.json").read_text())
    (row,) = report["rows"]
    assert (row["processes"], row["threads"]) == (1, 1)
    assert row["plain_per_core"] > 0
    assert row["share"] == pytest.approx(row["ray_per_core"] / row["plain_per_core"])


@pytest.mark.parametrize("ways", ["2", "0x1", "1x1,", "1x999"])
def test_a_way_that_cannot_be_measured_is_refused(ways: str) -> None:
    result = CliRunner().invoke(main, ["--ways", ways])
    assert result.exit_code == 2
    assert "expected processes x threads, of at most" in result.output
