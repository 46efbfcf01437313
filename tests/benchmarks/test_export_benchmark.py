"""The export benchmark: every file of a generator in every runtime, on label maps that any preset can read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.model import exported as export
from export.verify import MAX_ERROR_FP32
from spade_core.config import PRESETS, GeneratorConfig
from tests.export.small import small

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
]


@pytest.mark.parametrize(
    "config", [*PRESETS.values(), small("ade20k", preset="custom", label_nc=256)], ids=lambda config: config.preset
)
def test_real_maps_are_folded_into_a_presets_classes(config: GeneratorConfig, tmp_path: Path) -> None:
    for folder in ("label", "inst"):
        (tmp_path / folder).mkdir()
        ids = np.array([[0, 181], [34, 255]], np.uint8).repeat(32, 0).repeat(32, 1)
        Image.fromarray(ids).save(tmp_path / folder / "0.png")
    maps = export.maps_for(config, tmp_path, 1)
    assert maps.labels.shape == (1, config.height, config.width)
    wanted = {0, 181 % config.label_nc, 34 % config.label_nc} | ({255} if config.dont_care else set())
    assert set(np.unique(maps.labels)) == wanted
    assert (maps.instances is not None) == config.instance_edges
    assert (maps.style is not None) == config.style
    assert maps.symbols.max() < config.symbols


def test_every_file_is_measured_in_every_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "coco", small("coco"))
    arguments = ["--preset", "coco", "--precision", "fp32", "--precision", "bf16", "--json", str(tmp_path / "o.json")]
    result = CliRunner().invoke(export.export, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert [(row["form"], row["precision"], row["runtime"]) for row in rows] == [
        (form, precision, runtime)
        for form in ("dense", "codebook")
        for precision in ("fp32", "bf16")
        for runtime in ("onnxruntime", "openvino")
    ]
    for row in rows:
        if row["precision"] == "fp32":
            assert row["verdict"] == "ok"
            assert row["max_error"] <= MAX_ERROR_FP32
            assert row["model"] == "coco"
    assert "Could not find an implementation" in result.output  # ONNX Runtime has no bf16 kernels
