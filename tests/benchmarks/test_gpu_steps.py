"""The command of the GPU benchmark without a GPU: a rehearsal, its time budget, and steps that die or take too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu import kernels as gpu_kernels
from benchmarks.gpu import run as gpu_run
from benchmarks.gpu import sanitizer as gpu_sanitizer
from benchmarks.gpu import steps as gpu_steps
from benchmarks.gpu import timing as gpu_timing
from benchmarks.gpu.build import architecture, commands
from benchmarks.gpu.case import Case
from benchmarks.gpu.checks import checks
from benchmarks.gpu.process import Ended, run_group
from benchmarks.gpu.setting import Report, Setting
from benchmarks.gpu.steps import BUDGET_S, STEPS, Step, measure
from benchmarks.gpu.timing import Clock
from kernels.cuda.host import library as library_module
from kernels.cuda.host.library import Library, installed, library_path, use
from tests.kernels.cuda_emulated import emulated

__all__ = ["emulated"]

ROOT = Path(__file__).resolve().parents[2]
SH = ROOT / "benchmarks" / "gpu" / "gpu.sh"


@pytest.fixture
def used(emulated: Library) -> Iterator[Library]:
    use(emulated)
    yield emulated
    library_module._used.clear()


def in_this_process(command: Sequence[str], seconds: float, **options: Any) -> Ended:
    """Stands for `run_group` in most steps, which would each import PyTorch anew in a process of its own."""
    if "build" in command or "machine" in command:
        return run_group(command, seconds, **options)
    done = CliRunner().invoke(gpu_run.main, [str(one) for one in command[3:]], catch_exceptions=False)
    options.get("meanwhile", lambda: None)()
    return Ended(done.exit_code, done.output)


@pytest.mark.usefixtures("used")
def test_a_rehearsal_runs_every_step_and_prints_the_time_budget(
    emulated: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (gpu_steps, gpu_sanitizer):
        monkeypatch.setattr(module, "run_group", in_this_process)
    names = [step.name for step in STEPS]
    options = ["--rehearsed", emulated.path, "--only", ",".join(names), "--out", tmp_path]
    done = CliRunner().invoke(gpu_run.main, [str(one) for one in options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("rehearsal-*.json")
    report = json.loads(path.read_text())
    assert [name for name in report if isinstance(report[name], dict)] == names
    assert all(report[name]["wall_s"] > 0 for name in names)
    assert all(row["passed"] for row in report["checks"]["rows"])
    assert len(report["checks"]["rows"]) > 30
    assert len(report["kernels"]["rows"]) > 15
    assert [row["batch"] for row in report["model"]["rows"]] == [1, 1]
    assert all(row["psnr_db"] > 40 for row in (*report["model"]["rows"], *report["compile"]["rows"]))
    assert report["sanitizer"]["passed"]
    assert len(report["training"]["rows"]) == 2
    table = path.with_suffix(".md").read_text()
    assert "no figure here is of a GPU" in table
    assert "| modulate_codebook | 1x4x32x32, upsampled | float16 |" in table
    assert f"time budget: {BUDGET_S} s" in done.output


def test_the_steps_fit_the_budget() -> None:
    assert sum(step.seconds for step in STEPS if step.unasked) <= BUDGET_S - 30
    assert [step.name for step in STEPS if not step.unasked] == ["training"]


SAVES = """
import sys, time
with open(sys.argv[sys.argv.index("--json") + 1], "w") as out:
    out.write('{"rows": [{"ms": 1.5}]}')
"""


@pytest.mark.parametrize(
    ("then", "limit", "field", "text"),
    [
        ("time.sleep(600)", 12, "skipped", "the rest: not done after 12 s"),
        ("sys.exit('out of memory')", 300, "failed", "out of memory"),
        ("import os; os.abort()", 300, "failed", ""),
    ],
)
def test_a_step_that_dies_or_is_late_keeps_its_rows(
    monkeypatch: pytest.MonkeyPatch, then: str, limit: int, field: str, text: str
) -> None:
    usual, saved = gpu_steps.command_of, list[Report]()
    monkeypatch.setattr(
        gpu_steps, "command_of", lambda *given: [sys.executable, "-c", SAVES + then, *usual(*given)[3:]]
    )  # fmt: skip
    report = measure(Step("model", limit, ""), Setting(None, 0.0), limit, saved.append)
    assert report["rows"] == [{"ms": 1.5}]
    assert text in report[field]
    assert saved == [{"rows": [{"ms": 1.5}]}], "the rows are passed on while the step runs"


def test_a_process_that_is_late_ends_with_all_that_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    script = f"sh -c 'echo $$ > {noted}; exec sleep 300' & sleep 300"
    ended = run_group(["sh", "-c", script], 8)
    assert ended.status is None
    child = int(noted.read_text())
    for _ in range(100):
        stat = Path(f"/proc/{child}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"process {child} lives on")


def fake_tool(folder: Path, body: str) -> None:
    tool = folder / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)


@pytest.mark.parametrize(
    ("body", "limit", "expected"),
    [
        (
            'echo "caching=$PYTORCH_NO_CUDA_MEMORY_CACHING $*"; echo "ERROR SUMMARY: 0 errors"',
            300,
            {"errors": 0, "passed": True},
        ),
        ('echo "ERROR SUMMARY: 3 errors"; exit 9', 300, {"errors": 3, "passed": False}),
        ("echo Device not supported; exit 1", 300, {}),
        ("sleep 600", 3, {}),
    ],
)  # fmt: skip
def test_the_sanitizer_sees_every_allocation_and_may_be_late_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, limit: int, expected: Report
) -> None:
    fake_tool(tmp_path, body)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    report = gpu_sanitizer.sanitizer(Setting(None, time.monotonic() + limit))
    assert {key: report[key] for key in expected} == expected
    if "caching" in body:
        assert "caching=1 --tool memcheck --error-exitcode 9" in report["output"]
        assert "--step subset" in report["output"]
    if not expected:
        assert report["skipped"].startswith("compute-sanitizer did not")


@pytest.mark.usefixtures("used")
def test_checks_are_saved_a_row_at_a_time_and_stop_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, lengths = Setting(None, time.monotonic() + 600, Path("emulated"), tmp_path / "out.json"), list[int]()
    usual = Setting.save
    monkeypatch.setattr(
        Setting, "save", lambda self, report: (lengths.append(len(report["rows"])), usual(self, report))
    )
    checks(setting, most=3)
    assert lengths == [1, 2, 3]
    late = checks(Setting(None, time.monotonic() - 1, Path("emulated")), most=3)
    assert late["rows"] == []
    assert len(late["out_of_time"]) == 3
    assert late["passed"], "nothing that ran was wrong"


def test_a_peer_that_fails_costs_its_own_cell(used: Library) -> None:
    def refuse() -> None:
        raise torch.OutOfMemoryError("tried to allocate | 80 GiB")

    clock = Clock(torch.device("cpu"), 1)
    assert gpu_kernels.peer_row("eager", refuse, 1.0, clock) == {
        "eager_error": "OutOfMemoryError: tried to allocate / 80 GiB"
    }
    wrong = Case(lambda: (torch.ones(1),), lambda: (torch.ones(1),), None, 0.1, 1, 1, lambda: (torch.zeros(1),))
    peer = gpu_kernels.PEERS["triton"](wrong)
    assert peer is not None
    assert "exceeds 0.1: not timed" in gpu_kernels.peer_row("triton", peer, 1.0, clock)["triton_error"]
    assert installed() is used


def test_a_call_is_timed_behind_a_sleep_and_on_a_clean_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    queue: list[str] = []
    lates = [True, False, False]

    class Event:
        def __init__(self, **_: object) -> None: ...

        def record(self) -> None:
            queue.append("event")

        def query(self) -> bool:
            return lates.pop(0)

        def synchronize(self) -> None: ...

        def elapsed_time(self, _other: object) -> float:
            return 1.5

    class Buffer:
        def fill_(self, _value: int) -> None:
            queue.append("fill")

        def sum(self) -> None:
            queue.append("read")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    sleeps: list[int] = []
    monkeypatch.setattr(
        torch.cuda, "_sleep", lambda cycles: (sleeps.append(cycles), queue.append("sleep")), raising=False
    )
    clock = Clock(torch.device("cpu"), 2)
    clock._device, clock._filled, clock._read = torch.device("cuda"), Buffer(), Buffer()  # type: ignore[assignment]

    def call() -> None:
        queue.append("call")

    monkeypatch.setattr(gpu_timing, "_host_seconds", lambda call: call() or 0.002)
    assert clock.milliseconds(call) == 1.5
    turn = ["fill", "read", "sleep", "event", "call", "event"]
    assert queue[5:] == turn * 3, "a call that the stream did not wait for is measured again"
    assert sleeps[0] == 2 * 0.002 * 2e9, "the stream sleeps longer than the host takes"
    assert sleeps[1] == 2 * sleeps[0]


def test_the_build_takes_cmake_alone_and_this_gpu() -> None:
    assert architecture((9, 0)) == "90a-real"
    assert architecture((12, 0)) == "120-real"
    configure, build, install = commands("/nanobind", "90a-real", "Ninja")
    assert "-DCMAKE_CUDA_ARCHITECTURES=90a-real" in configure
    assert f"-DPython_EXECUTABLE={sys.executable}" in configure
    assert build[:2] == ["cmake", "--build"]
    assert Path(install[-1]) == library_path().parents[2]


def test_the_build_needs_nothing_that_it_builds() -> None:
    """The compiled module is absent before the first step; None in sys.modules makes its import fail."""
    script = """
import sys
sys.modules["kernels._native"] = None
import benchmarks.gpu.build, benchmarks.gpu.run, benchmarks.gpu.steps, benchmarks.gpu.table
assert benchmarks.gpu.build.prefix() == benchmarks.gpu.build.ROOT
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_unknown_steps_are_named() -> None:
    done = subprocess.run([SH, "--only", "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected steps out of build, machine, checks" in done.stderr
