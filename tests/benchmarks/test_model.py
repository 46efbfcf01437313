"""The model benchmark runs every engine and peer on the same weights and reports a row for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common.loaded_process import LoadedProcess
from benchmarks.model.run import OURS, PEERS, Result, lacking, row_of
from benchmarks.model.worker import Setting, describe, load_turn
from spade_core.config import preset
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator


def test_names_say_engine_form_and_precision() -> None:
    assert describe("torch-codebook-bf16") == ("torch", "codebook", "bf16")
    assert describe("torch-fp32") == ("torch", "dense", "fp32")
    assert describe("onnxruntime") == ("onnxruntime", "dense", "fp32")
    assert describe("openvino-bf16") == ("openvino", "dense", "bf16")


def test_rows_take_the_median_and_the_largest_error() -> None:
    reference = Result(images=[np.zeros((1, 3, 1, 1), np.float32)] * 2)
    result = Result([0.3, 0.1, 0.2], [np.full((1, 3, 1, 1), 0.02, np.float32), np.zeros((1, 3, 1, 1), np.float32)])
    row = row_of("openvino-bf16", 1, result, reference)
    assert (row.seconds_median, row.seconds_min, row.seconds_max) == (0.2, 0.1, 0.3)
    assert row.max_error == pytest.approx(0.02)
    assert row.psnr_db == pytest.approx(43.0)


def test_an_engine_that_does_not_start_is_named(tmp_path: Path) -> None:
    setting = Setting("coco", None, None, 8, tmp_path / "none.onnx", 1)
    with pytest.raises(RuntimeError, match="expected onnxruntime to run but its process ended"):
        LoadedProcess("onnxruntime", load_turn, "onnxruntime", setting)


def test_engines_that_the_processor_lacks_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.isa.supported_isas", lambda: ["avx2"])
    left_out = lacking(("cpu-fp32", "cpu-bf16", "cpu-int8"))
    assert set(left_out) == {"cpu-bf16", "cpu-int8"}
    assert "expected a processor with AVX-512 and its bf16" in left_out["cpu-bf16"]


def test_bf16_of_pytorch_is_left_out_where_its_convs_take_minutes() -> None:
    code = (
        "from benchmarks.model.run import lacking; print(*lacking(('torch-fp32', 'torch-bf16', 'torch-codebook-bf16')))"
    )
    avx2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}  # makes PyTorch treat the processor as a Zen 3
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | avx2
    )
    assert done.stdout.strip() == "torch-bf16 torch-codebook-bf16"


@pytest.mark.slow
def test_every_engine_and_peer_runs_and_agrees(tmp_path: Path) -> None:
    save(tmp_path / "w.safetensors", seeded_generator(replace(preset("coco"), nf=4, height=64, width=64)))
    subprocess.run(
        [
            sys.executable, "-m", "benchmarks.model", "--weights", tmp_path / "w.safetensors", "--batches", "1,4",
            "--repeats", "1", "--json", tmp_path / "rows.json",
        ],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / "rows.json").read_text())
    assert report["machine"]["cores"] >= 1
    names = set(PEERS + OURS) - set(lacking(PEERS + OURS))
    assert {(r["name"], r["batch"]) for r in report["rows"]} == {(n, b) for n in names for b in (1, 4)}
    for row in report["rows"]:
        assert 0 < row["seconds_min"] <= row["seconds_median"] <= row["seconds_max"]
        assert row["max_error"] <= (1e-4 if row["precision"] == "fp32" else 0.5)
        if row["precision"] == "bf16":
            assert row["psnr_db"] > 30
