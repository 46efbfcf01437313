"""The model benchmark runs every engine and peer on the same weights and reports a row for each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import validate

from benchmarks.model import run as model_run
from benchmarks.model import worker as model_worker
from benchmarks.model.command import model
from benchmarks.model.contenders import OURS, PEERS, describe, lacking
from benchmarks.model.run import Plan, Result, Run, _in_turn, mean_psnr, row_of
from benchmarks.model.worker import Setting
from benchmarks.report.noise import NoiseMeter
from benchmarks.report.report import Report
from benchmarks.report.screen import Screen
from serving.cli.main import main
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator
from tests.export.small import small

SCHEMA = json.loads((Path(__file__).parents[2] / "benchmarks/report/schema.json").read_text())


def test_names_say_engine_form_and_precision() -> None:
    assert describe("torch-codebook-bf16") == ("torch", "codebook", "bf16")
    assert describe("torch-fp32") == ("torch", "dense", "fp32")
    assert describe("onnxruntime") == ("onnxruntime", "dense", "fp32")
    assert describe("openvino-bf16") == ("openvino", "dense", "bf16")


def test_rows_take_the_median_and_the_largest_error() -> None:
    row = row_of("openvino-bf16", 2, Result([0.3, 0.1, 0.2], [0.3, 0.1, 0.2], [(0.02, 40.0), (0.01, 50.0)]))
    assert (row["seconds_median"], row["seconds_min"], row["seconds_max"]) == (0.2, 0.1, 0.3)
    assert (row["name"], row["case"], row["measures"]) == ("openvino-bf16", "batch 2", {"seconds": [0.3, 0.1, 0.2]})
    assert row["max_error"] == 0.02
    assert row["psnr_db"] == 42.6  # of the mean squared error, (1e-4 + 1e-5) / 2


def test_equal_images_have_no_psnr() -> None:
    assert mean_psnr([float("inf")]) is None
    assert mean_psnr([]) is None


def test_an_engine_that_does_not_load_is_a_row_with_the_reason(tmp_path: Path) -> None:
    setting = Setting("demo", None, None, 2, tmp_path, 1, tensorrt=tmp_path / "none.plan")
    report = Report("model", {})
    run = Run(Plan(("onnxruntime", "cpu-fp32"), (1,), 2, 1, 60.0), report, Screen(9), NoiseMeter())
    with ExitStack() as stack:
        run.load(replace(setting, onnx=tmp_path / "none.onnx"), stack)
        run.measure(1, lambda: None)
    assert [(one.name, one.case) for one in report.missing] == [("onnxruntime", "every batch")]
    assert "none.onnx" in report.missing[0].reason
    assert [row["name"] for row in report.rows] == ["cpu-fp32"]


def test_a_contender_that_would_take_too_long_is_a_row_with_the_reason() -> None:
    report = Report("model", {})
    run = Run(Plan(("torch-fp32",), (1, 32), 1, 1, most_call_s=20.0), report, Screen(1), NoiseMeter())
    run.workers, run.per_image = {"torch-fp32": None}, {"torch-fp32": 2.0}  # type: ignore[dict-item]
    run.measure(32, lambda: None)
    assert report.rows == []
    assert report.missing[0].reason == "a call would take about 64 s, more than --most-call 20"


def test_contenders_take_turns_behind_the_reference() -> None:
    names = ["cpu-fp32", "torch-fp32", "onnxruntime"]
    assert list(_in_turn(names, 0)) == ["torch-fp32", "cpu-fp32", "onnxruntime"]
    assert list(_in_turn(names, 1)) == ["torch-fp32", "onnxruntime", "cpu-fp32"]


def test_engines_that_the_processor_lacks_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.isa.supported_isas", lambda: ["avx2"])
    left_out = lacking(("cpu-fp32", "cpu-bf16", "cpu-int8"))
    assert set(left_out) == {"cpu-bf16", "cpu-int8"}
    assert "expected a processor with AVX-512 and its bf16" in left_out["cpu-bf16"]


def test_bf16_of_pytorch_is_left_out_where_its_convs_take_minutes() -> None:
    names = ("torch-fp32", "torch-bf16", "torch-codebook-bf16")
    code = f"from benchmarks.model.contenders import lacking; print(*lacking({names}))"
    avx2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}  # makes PyTorch treat the processor as a Zen 3
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | avx2
    )
    assert done.stdout.strip() == "torch-bf16 torch-codebook-bf16"


def test_tensorrt_asks_for_an_engine_file() -> None:
    assert "expected --tensorrt with an engine file" in lacking(("tensorrt",))["tensorrt"]


def test_an_unknown_name_is_wrong_usage() -> None:
    done = CliRunner().invoke(model, ["--engines", "cpu-fp64"])
    assert done.exit_code == 2
    assert "--engines: expected names out of cpu-fp32, " in done.output


def test_a_precision_that_the_processor_lacks_is_no_error(tmp_path: Path) -> None:
    """Asked for by name on a processor of AVX2 alone, bf16 is a row that says why."""
    code = (
        "import kernels.isa; kernels.isa.supported_isas = lambda: ['avx2']\n"
        "from benchmarks.model.command import model\n"
        "model(['--engines', 'cpu-bf16', '--peers', 'none', '--batches', '1', '--turns', '1', '--maps', '1',\n"
        f"       '--weights', {str(tiny(tmp_path))!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "expected a processor with AVX-512 and its bf16" in done.stdout
    assert "Traceback" not in done.stderr


def tiny(folder: Path) -> Path:
    save(folder / "w.safetensors", seeded_generator(small("coco")))
    return folder / "w.safetensors"


class InThisProcess:
    """Stands for `LoadedProcess`: ten processes would import PyTorch ten times."""

    def __init__(self, _name: str, load: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        self.call = load(*arguments)

    def close(self) -> None:
        """Nothing is left to end."""


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_engine_and_peer_runs_and_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_run, "LoadedProcess", InThisProcess)
    monkeypatch.setattr(model_worker, "PAUSE_S", 0.0)
    files = ["--json", tmp_path / "rows.json", "--html", tmp_path / "page.html", "--markdown", tmp_path / "page.md"]
    options = ["--weights", tiny(tmp_path), "--batches", "1,4", "--turns", "2", "--threads", "1", *files]
    done = CliRunner().invoke(main, ["bench", "model", *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "rows.json").read_text())
    assert report["machine"]["cores"] >= 1
    validate(report, SCHEMA)
    names = set(PEERS + OURS) - set(lacking(PEERS + OURS))
    assert {one["name"] for one in report["missing"]} == set(PEERS + OURS) - names
    assert {(r["name"], r["batch"]) for r in report["rows"]} == {(n, b) for n in names for b in (1, 4)}
    for row in report["rows"]:
        assert 0 < row["seconds_min"] <= row["seconds_median"] <= row["seconds_max"]
        assert len(row["measures"]["seconds"]) == 2
        if row["name"] != "torch-fp32":
            assert row["max_error"] <= (1e-4 if row["precision"] == "fp32" else 0.5)
        if row["precision"] == "bf16":
            assert row["psnr_db"] > 30
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg ") == 3
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page), "the page loads nothing from elsewhere"
    assert "| cpu-fp32 (ours) | codebook |" in (tmp_path / "page.md").read_text()
