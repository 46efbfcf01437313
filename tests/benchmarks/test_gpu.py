"""The GPU benchmark without a GPU: a dry run, and its cases on emulated kernels."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.common.maps import read_maps
from benchmarks.gpu.cases import cases
from benchmarks.gpu.checks import error_of
from benchmarks.gpu.model import batches_of
from benchmarks.gpu.run import STEPS, Step, measure
from benchmarks.gpu.table import markdown
from kernels.cuda.host import tensors
from kernels.cuda.host.library import Library
from kernels.ops.plan import plan
from spade_core.codebook import modulate as modulate_module
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.modulate import by_entry
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import preset
from spade_core.models.dense import synthesize_dense
from spade_core.models.seeded import seeded_generator
from tests.kernels.cuda_emulated import emulated

__all__ = ["emulated"]

ROOT = Path(__file__).resolve().parents[2]
SMALL = replace(preset("coco"), height=32, width=32, nf=2)


@pytest.fixture
def kernels_on_the_cpu(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "installed", lambda: emulated)


def test_the_dry_run_goes_through_every_step(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [ROOT / "benchmarks" / "gpu" / "gpu.sh", "--dry-run", "--json", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert [name for name in report if isinstance(report[name], dict)] == [step.name for step in STEPS]
    assert len(report["checks"]["would_check"]) > 30
    assert len(report["kernels"]["would_time"]) == len(report["checks"]["would_check"])
    assert len(report["model"]["would_time"]) == 5
    assert "would_run" in report["sanitizer"] or "skipped" in report["sanitizer"]
    assert "no figure here was measured" in out.with_suffix(".md").read_text()
    assert not any("ms" in row for row in report["kernels"]["would_time"])


def test_a_step_that_fails_is_reported_and_the_rest_goes_on() -> None:
    step = next(step for step in STEPS if step.name == "checks")
    report = measure(step, None, dry_run=False)  # without a GPU there is nothing to check on
    if not torch.cuda.is_available():
        assert "failed" in report
    assert report["wall_s"] > 0


def test_a_step_that_is_ended_keeps_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import sys, time
from pathlib import Path
from benchmarks.gpu.setting import Setting
Setting(None, False, 0.0, Path(sys.argv[-1])).save({"rows": [{"ms": 1.5}]})
time.sleep(60)
"""
    monkeypatch.setattr("benchmarks.gpu.run._command", lambda _name, _setting: [sys.executable, "-c", program])
    report = measure(Step("model", 15, ""), None, dry_run=False)
    assert report["rows"] == [{"ms": 1.5}]
    assert report["failed"] == "not done after 15 s"


def test_unknown_steps_are_named() -> None:
    done = subprocess.run(
        [ROOT / "benchmarks" / "gpu" / "gpu.sh", "--only", "speed"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected steps out of machine, checks, sanitizer" in done.stderr


@pytest.mark.usefixtures("kernels_on_the_cpu")
def test_every_case_computes_what_it_should() -> None:
    found = list(cases(SMALL, read_maps(SMALL, None, count=1), torch.device("cpu"), batch=1))
    names = {case.name for case in found}
    assert {"plan", "embed", "codebook gathered", "codebook per tap", "modulate_codebook"} < names
    for case in found:
        error = error_of(case)
        assert error <= case.limit, f"{case.name} {case.shape} {case.dtype}: {error}"
        assert case.bytes > 0


@pytest.mark.usefixtures("kernels_on_the_cpu")
def test_a_wrong_case_is_caught() -> None:
    case = next(iter(cases(SMALL, read_maps(SMALL, None, count=1), torch.device("cpu"), batch=1)))
    wrong = replace(case, expected=lambda: tuple(output + 1 for output in case.expected()))
    missing = replace(case, expected=lambda: tuple(output * torch.nan for output in case.expected()))
    assert error_of(wrong) > case.limit
    assert not error_of(missing) <= case.limit


def test_a_training_step_on_the_kernels_has_the_gradient_of_the_dense_form(
    emulated: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modulate_module, "library_for", lambda _x: emulated)
    config = replace(SMALL, height=64, label_nc=5)
    symbols = (
        np.random.default_rng(0).integers(0, config.symbols, (2, 8, 4)).repeat(8, 1).repeat(8, 2).astype(np.uint16)
    )
    levels = {
        size: replace(level, order=by_entry(level.index, len(level.patches5)))
        for size, level in level_tensors(
            plan(symbols, config.level_sizes, config.symbols, 3), torch.device("cpu")
        ).items()
    }
    generator, on_host = seeded_generator(config).train(), torch.from_numpy(symbols.astype(np.int32))
    gradients = []
    for ours in (True, False):
        generator.zero_grad()
        image = (
            synthesize_codebook(generator, None, on_host, levels, None)
            if ours
            else synthesize_dense(generator, on_host, None)
        )
        image.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in generator.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*gradients, dim=0) > 1 - 1e-5


@pytest.mark.parametrize("size", [1, 8, 32])
def test_no_batch_of_the_model_step_has_a_map_twice(size: int) -> None:
    batches = batches_of(read_maps(SMALL, None, count=4), size)
    assert {batch.shape for batch in batches} == {(size, 32, 32)}
    assert len(batches) >= 3
    every = np.concatenate(batches)
    assert len(np.unique(every, axis=0)) == len(every)


def test_the_table_shows_rows_and_failures() -> None:
    report = {
        "date": "2026-01-01", "dry_run": False, "machine": {"gpu": "H200"}, "model": {"failed": "out of memory"},
        "training": {"rows": [{"form": "spade bf16", "batch": 8, "ms": 1.25, "cosine_to_float32": 0.5}]},
    }  # fmt: skip
    text = markdown(report)
    assert "- gpu: H200" in text
    assert "- failed: out of memory" in text
    assert "| spade bf16 | 8 | 1.25 | 0.5 |" in text
