"""The picture of `benchmarks.accelerate` shows what the report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.accelerate.picture import draw, main

ROWS = [
    {"network": "SPADENet 2D", "size": "64x64", "seconds_plain": 0.5, "seconds_accelerated": 0.1, "ratio": 5.0},
    {"network": "UNet 3D", "size": "8x8x8", "seconds_plain": 0.2, "seconds_accelerated": 0.4, "ratio": 0.5},
]


def test_each_network_has_its_two_times_and_their_ratio() -> None:
    (axes,) = draw(ROWS).axes
    times = [[bar.get_width() for bar in container] for container in axes.containers]
    assert times == [[500.0, 200.0], [100.0, 400.0]]
    assert [text.get_text() for text in axes.texts] == ["5.0x", "0.5x"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SPADENet 2D, 64×64", "UNet 3D, 8×8×8"]
    assert axes.get_xlim()[1] > 500
    with pytest.raises(ValueError, match="expected rows"):
        draw([])


def test_the_command_writes_the_same_file_twice(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"rows": ROWS}))
    for name in ("one.svg", "two.svg"):
        result = CliRunner().invoke(main, [str(tmp_path / "report.json"), str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    assert "SPADENet 2D, 64×64" in (tmp_path / "one.svg").read_text()
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
