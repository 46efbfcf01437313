"""The kernel benchmark times only kernels that agree with their peers, and its file has the agreed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import benchmarks.kernels
from benchmarks.kernels import check_conv, main
from kernels.steps import supported_tiers

pytestmark = pytest.mark.skipif(not supported_tiers(), reason="no tier runs on this processor")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.kernels, "CONV_SHAPES", ((40, 48, 6), (32, 3, 8)))
    monkeypatch.setattr(benchmarks.kernels, "PEAK_OPERATIONS", 10**5)


def test_every_tier_has_its_rows_and_its_peak(tmp_path: Path) -> None:
    out = tmp_path / "new" / "kernels.json"
    done = CliRunner().invoke(main, ["--repeats", "2", "--json", str(out)])
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert list(report["peak_gflop_per_s_per_core"]) == supported_tiers()
    assert [(row["tier"], row["shape"]) for row in report["rows"]] == [
        (tier, shape) for tier in supported_tiers() for shape in ("40->48 6x6", "32->3 8x8")
    ]
    for row in report["rows"]:
        assert row["ms_min"] <= row["ms_median"]
        assert row["peer"] in ("torch", "oneDNN, packed")
        assert row["ratio"] == pytest.approx(row["peer_ms_median"] / row["ms_median"])
        assert row["share"] == pytest.approx(
            row["gflop_per_s"] / report["peak_gflop_per_s_per_core"][row["tier"]] / row["threads"]
        )


def test_an_unknown_tier_is_refused() -> None:
    done = CliRunner().invoke(main, ["--tiers", "sse"])
    assert done.exit_code == 2
    assert "but got 'sse'" in done.output


@pytest.mark.parametrize("wrong", [1.1, np.nan])
def test_a_kernel_that_differs_from_its_peer_is_not_timed(wrong: float) -> None:
    check_conv("conv", "torch", np.ones(3), np.ones(3), "float32")
    with pytest.raises(
        RuntimeError, match=r"\[benchmark\] expected conv within .* of torch but got .*; run the kernel"
    ):
        check_conv("conv", "torch", np.array([1.0, wrong, 1.0]), np.ones(3), "float32")
