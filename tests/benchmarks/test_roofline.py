"""The roofline plot shows every kernel once, with a label of its own, under the measured lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.text import Annotation, Text
from PIL import Image

from benchmarks.cpu_kernels.roofline import dots, draw, main, panels


def row(kernel: str, shape: str, isa: str, dtype: str, operations: int, moved: int, rate: float) -> dict[str, Any]:
    return {
        "kernel": kernel, "shape": shape, "isa": isa, "dtype": dtype, "operations": operations, "bytes": moved,
        "gflop_per_s": rate,
    }  # fmt: skip


@pytest.fixture
def report() -> dict[str, Any]:
    rows = [row("plan", "6 levels 32x32", "any", "int32", 0, 10, 0.0)]
    for isa, dtype, scale in (("avx2", "float32", 1), ("avx512", "float32", 2), ("avx512bf16", "bf16", 4)):
        rows += [row("conv 3x3", f"{c}->{c} 8x8", isa, dtype, 400 * c, 4 * c, 100.0 * scale) for c in (64, 128, 256)]
        rows.append(row("modulate", "64 16x16 upsampled", isa, dtype, 30, 100, 5.0 * scale))
        rows.append(row("embed", "17 patches 16x16", isa, dtype, 90, 100, 6.0 * scale))
    return {
        "machine": {"cpu": "a processor"},
        "threads": 2,
        "peak_gflop_per_s_per_core": {"avx2": 100.0, "avx512": 150.0, "avx512bf16": 300.0},
        "copy_gb_per_s": {"memory": 20.0, "cache": 90.0},
        "rows": rows,
    }


def test_a_panel_is_the_fastest_isa_of_a_dtype(report: dict[str, Any]) -> None:
    assert panels(report) == {"float32": "avx512", "bf16": "avx512bf16"}


def test_every_row_with_operations_has_a_dot(report: dict[str, Any]) -> None:
    assert dots(report, "avx512") == [
        ("conv 3x3", "64→64 @8", 100.0, 200.0),
        ("conv 3x3", "128→128 @8", 100.0, 200.0),
        ("conv 3x3", "256→256 @8", 100.0, 200.0),
        ("modulate", "64 @16", 0.3, 10.0),
        ("embed", "17 @16", 0.9, 12.0),
    ]
    with pytest.raises(ValueError, match=r"\[roofline\] expected rows of avx but got none"):
        dots(report, "avx")


def test_labels_do_not_cover_each_other_even_where_dots_do(report: dict[str, Any]) -> None:
    figure = draw(report)
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts if isinstance(text, Annotation)]
        assert len(boxes) == 5
        assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
        inside = axes.get_window_extent()
        assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and box.y1 <= inside.y1 for box in boxes)


def test_the_lines_are_the_measured_peak_and_copies(report: dict[str, Any]) -> None:
    peak, memory, cache = draw(report).axes[0].lines
    assert list(peak.get_ydata()) == [300.0, 300.0]
    for line, rate in ((memory, 20.0), (cache, 90.0)):
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert y == pytest.approx(x * rate)
        assert y[-1] == 300.0


def test_the_command_writes_a_png_900_pixels_wide(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "kernels.json").write_text(json.dumps(report))
    image = tmp_path / "new" / "roofline.png"
    done = CliRunner().invoke(main, [str(tmp_path / "kernels.json"), str(image)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with Image.open(image) as png:
        assert png.format == "PNG"
        assert png.size[0] == 900
