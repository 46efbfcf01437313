"""The training benchmark runs every contender, counts multiply-adds, and both forms' gradients agree."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks.training import run as train
from benchmarks.training.gradients import compare
from benchmarks.training.measure import CODEBOOK, CONTENDERS, DENSE, PAPER, Row
from trainer.precision import choose_precision
from trainer.processes import device_kind

# Float32 sums of at most 64 * 64 pixels, forward and back, in two orders.
GRADIENTS = 1e-4


BF16 = not choose_precision("bf16", device_kind("auto")).warning


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not check
        train.worker(json.loads(arguments[-1]))
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(train, "subprocess", SimpleNamespace(run=run))


@pytest.mark.usefixtures("_in_this_process")
def test_a_run_reports_every_contender_and_the_gradients(tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.json"
    result = CliRunner().invoke(
        train.main,
        ["--preset", "ade20k", "--size", "64", "--nf", "2", "--batch", "2", "--repeats", "1",
         "--threads", "1", "--precision", "bf16", "--json", str(path)],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0
    for name in (*CONTENDERS, "gradients"):
        assert f"measured {name}" in result.output
    report: dict[str, Any] = json.loads(path.read_text())
    rows = {row["name"]: Row(**row) for row in report["rows"]}
    assert rows[PAPER].gmac > rows[DENSE].gmac > rows[CODEBOOK].gmac
    assert all(row.seconds_min > 0 and row.batch == 2 for row in rows.values())
    by_form = {(one["form"], one["precision"]): one for one in report["gradients"]}
    precisions = ("fp32", "bf16") if BF16 else ("fp32",)
    assert ("bf16 left out" in result.output) == (not BF16)
    assert {row.precision for row in rows.values()} == {precisions[-1]}
    assert set(by_form) == {(form, precision) for form in ("dense", "codebook") for precision in precisions}
    assert by_form["codebook", "fp32"]["all"] <= GRADIENTS
    assert by_form["codebook", "fp32"]["worst"] <= GRADIENTS
    if BF16:
        assert GRADIENTS < by_form["codebook", "bf16"]["all"] < 2 * by_form["dense", "bf16"]["all"]


def test_differences_are_relative_norms_and_name_the_worst_parameter() -> None:
    reference = {"a": torch.tensor([3.0, 4.0]).double(), "b": torch.tensor([1.0]).double()}
    now = {"a": torch.tensor([3.0, 4.5]).double(), "b": torch.tensor([1.5]).double()}
    found = compare("codebook", "fp32", now, reference)
    assert found.all == pytest.approx((0.25 + 0.25) ** 0.5 / 26**0.5)
    assert (found.worst, found.worst_name) == (pytest.approx(0.5), "b")


def test_a_gradient_that_one_form_lacks_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"same parameters but got .*'b'"):
        compare("codebook", "fp32", {"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)})
