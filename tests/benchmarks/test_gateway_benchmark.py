"""`python -m benchmarks.gateway` on a narrow generator: a row for each door, connections held, memory watched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.gateway.run import main
from spade_core.config import DEMO_WEIGHTS

SHORT = ["--batch", "1", "--clients", "1", "--seconds", "0.2", "--rounds", "1", "--ahead", "1500"]


def test_the_gateway_is_measured_beside_triton(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--channels", "2", "--doors", "rest", *SHORT]
    done = CliRunner().invoke(main, [*arguments, "--connections", "20", "--requests", "20", "--json", str(report)])
    assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())
    assert (found["preset"], found["channels"]) == ("demo", 2)
    assert [row["door"] for row in found["cost"]] == ["rest"]
    for row in found["cost"]:
        assert row["share"] == pytest.approx(row["gateway"]["images_s"] / row["triton"]["images_s"])
        assert row["p99_more_ms"] == pytest.approx(row["gateway"]["p99_ms"] - row["triton"]["p99_ms"])
        assert 0 < row["own_ms"] < row["gateway"]["p99_ms"]
        assert 0 <= row["own_5_ms"] <= 1
    assert found["held"]["connections"] == 20
    assert found["memory"]["requests"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", str(DEMO_WEIGHTS), "--channels", "4"], "expected --channels or --weights but got both"),
        (["--channels", "3"], "expected nf to be even and at least 2 but got 3"),
    ],
)
def test_wrong_channels_are_told(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert message in done.output
