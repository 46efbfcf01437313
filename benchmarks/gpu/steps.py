"""The steps of the GPU benchmark, each in a process of its own."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.process import run_group
from benchmarks.gpu.setting import Report, Setting

BUDGET_S = 570  # of the whole command; the machine is taken away after 600
_SPARE_S = 8  # a step's own measurements end so long before its limit: the last one may overrun


@dataclass(frozen=True)
class Step:
    """One step: its name, its longest time in seconds, what it measures, and whether the command runs it unasked."""

    name: str
    seconds: int
    what: str
    unasked: bool = True


STEPS = (
    Step("build", 75, "the kernels, with CMake alone"),
    Step("machine", 15, "the machine, and its copy bandwidth"),
    Step("checks", 45, "every kernel against its specification in float64"),
    Step("model", 100, "the generator at batch 8, 1 and 32 beside a recorded dense form"),
    Step("kernels", 90, "kernels in float16 beside a copy, PyTorch and Triton"),
    Step("compile", 130, "torch.compile at batch 8"),
    Step("sanitizer", 60, "some of the checks under compute-sanitizer memcheck"),
    Step("training", 120, "a training step of the generator beside dense PyTorch", unasked=False),
)
assert sum(step.seconds for step in STEPS if step.unasked) <= BUDGET_S - 30, "30 s are for starts and the table"


# The module and the function of each step. The sanitizer runs `subset` in a process of its own.
_FUNCTIONS = {
    "build": ("build", "build"),
    "machine": ("kernels", "machine"),
    "checks": ("checks", "checks"),
    "subset": ("checks", "subset"),
    "model": ("model", "model"),
    "kernels": ("kernels", "kernels"),
    "compile": ("model", "compile"),
    "sanitizer": ("sanitizer", "sanitizer"),
    "training": ("training", "training"),
}


def run_step(name: str, setting: Setting) -> Report:
    """Run one step in this process."""
    # Imported one by one: all but the first step need the compiled module, which the first step builds.
    module, function = _FUNCTIONS[name]
    run: Callable[[Setting], Report] = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)
    return run(setting)


def command_of(name: str, setting: Setting, seconds: float, out: Path) -> list[str]:
    """The command of one step, which measures for at most some seconds and writes its report to a file."""
    return [
        sys.executable, "-m", "benchmarks.gpu", "--step", name, "--seconds", str(max(1, int(seconds))), "--json",
        str(out), *(["--labels", str(setting.labels)] if setting.labels else []),
        *(["--rehearsed", str(setting.rehearsed)] if setting.rehearsed else []),
    ]  # fmt: skip


def measure(
    step: Step, setting: Setting, seconds: float, save: Callable[[Report], None] = lambda _report: None
) -> Report:
    """Run one step in a process of its own for at most some seconds, and pass on its report as it grows.

    A step that dies has the field `failed`; one whose time is over has `skipped`. Both keep the rows that it saved.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "report.json")
        seen: Report = {}

        def read() -> None:
            nonlocal seen
            if out.exists():
                now = json.loads(out.read_text())
                if now != seen:
                    seen = now
                    save(seen)

        began = time.monotonic()
        spare = min(_SPARE_S, seconds / 4)
        ended = run_group(command_of(step.name, setting, seconds - spare, out), seconds, meanwhile=read)
    report = dict(seen)
    if ended.status is None:
        report["skipped"] = f"the rest: not done after {seconds:.0f} s"
    elif ended.status != 0 and report.get("passed") is not False:
        report["failed"] = ended.printed[-2000:]
    elif ended.status != 0:
        report["failed"] = "a result is wrong: see the rows"
    return report | {"wall_s": round(time.monotonic() - began, 3)}
