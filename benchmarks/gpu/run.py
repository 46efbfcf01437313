"""The GPU benchmark in one command under nine minutes: `benchmarks/gpu/gpu.sh --labels DIR`.

Each step runs in a process of its own with its own share of the time, so that a step that crashes or hangs costs only
its own figures. The report is written after every step.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from benchmarks.common.maps import labels_name
from benchmarks.gpu.setting import Report, Setting
from spade_core.files.strict_json import json_text

RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Step:
    """One step of the benchmark: name, longest time in seconds, and what it measures."""

    name: str
    seconds: int
    what: str


STEPS = (
    Step("machine", 30, "the machine, and its copy bandwidth"),
    Step("checks", 60, "every kernel against its specification in float64"),
    Step("sanitizer", 80, "the checks under compute-sanitizer memcheck"),
    Step("kernels", 110, "kernels beside PyTorch and Triton, and their share of the copy bandwidth"),
    Step("model", 190, "the generator at batch 1, 8 and 32 beside dense PyTorch"),
    Step("training", 60, "a training step of the generator beside dense PyTorch"),
)
assert sum(step.seconds for step in STEPS) <= 530, "the command must end within nine minutes"


def run_step(name: str, setting: Setting) -> Report:
    """Run one step in this process."""
    from benchmarks.gpu import checks as gpu_checks
    from benchmarks.gpu import kernels as gpu_kernels
    from benchmarks.gpu import model as gpu_model
    from benchmarks.gpu import training as gpu_training

    steps: dict[str, Callable[[Setting], Report]] = {
        "machine": gpu_kernels.machine,
        "checks": gpu_checks.checks,
        "sanitizer": sanitizer,
        "kernels": gpu_kernels.kernels,
        "model": gpu_model.model,
        "training": gpu_training.training,
    }
    return steps[name](setting)


def sanitizer(setting: Setting) -> Report:
    """Run the checks under compute-sanitizer, if it is installed and runs here."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"skipped": "compute-sanitizer is not on PATH"}
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", *_command("checks", setting)]
    if setting.dry_run:
        return {"would_run": " ".join(command)}
    left = max(1.0, setting.ends - time.monotonic())
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=left)
    errors = re.findall(r"ERROR SUMMARY: (\d+) error", done.stdout)
    if not errors:
        return {"skipped": f"compute-sanitizer did not run here: {(done.stdout + done.stderr)[-500:]}"}
    return {"errors": int(errors[-1]), "passed": done.returncode == 0, "output": done.stdout[-2000:]}


def _command(name: str, setting: Setting) -> list[str]:
    options = [
        *(["--labels", str(setting.labels)] if setting.labels else []),
        *(["--dry-run"] if setting.dry_run else []),
    ]
    return [sys.executable, "-m", "benchmarks.gpu", "--step", name, *options]


def measure(step: Step, labels: Path | None, dry_run: bool) -> Report:
    """Run one step in a process of its own, which is ended when the step's time is over."""
    setting = Setting(labels, dry_run, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "report.json")
        command = [*_command(step.name, setting), "--seconds", str(step.seconds - 10), "--json", str(out)]
        began = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=step.seconds)
            failure = None if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]
        except subprocess.TimeoutExpired:
            failure = f"not done after {step.seconds} s"
        report: Report = json.loads(out.read_text()) if out.exists() else {}
    if failure is not None:
        report["failed"] = failure
    return report | {"wall_s": round(time.monotonic() - began, 1)}


@click.command()
@click.option(
    "--labels", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of label maps, or one holding label/ and inst/. Without it, drawn maps.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Run everything up to the first launch, on small inputs: needs no GPU.")
@click.option("--only", help="Steps to run, separated by commas.  [default: all]")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path),
    help="File of the figures; the table is written beside it as .md.  [default: benchmarks/results/GPU-DATE.json]",
)  # fmt: skip
@click.option("--step", "step_name", hidden=True, help="Run one step in this process.")
@click.option("--seconds", type=int, default=60, hidden=True, help="Longest time of that step.")
def main(
    labels: Path | None, dry_run: bool, only: str | None, json_path: Path | None, step_name: str | None, seconds: int
) -> None:
    """Check and measure all kernels, the generator and a training step on a GPU; exit with 1 if a step fails."""
    if step_name is not None:
        setting = Setting(labels, dry_run, time.monotonic() + seconds, json_path)
        own = run_step(step_name, setting)
        setting.save(own)
        sys.exit(1 if own.get("passed") is False else 0)
    from benchmarks.gpu.table import markdown

    console = Console()
    wanted = only.split(",") if only else [step.name for step in STEPS]
    unknown = sorted(set(wanted) - {step.name for step in STEPS})
    if unknown:
        raise click.BadParameter(f"expected steps out of {', '.join(s.name for s in STEPS)} but got {unknown[0]}")
    report: Report = {"date": date.today().isoformat(), "dry_run": dry_run, "labels": labels_name(labels)}
    for step in STEPS:
        if step.name not in wanted:
            continue
        console.print(f"{step.name}: {step.what}")
        report[step.name] = measure(step, labels, dry_run)
        if "failed" in report[step.name]:
            console.print(f"[red]{step.name} failed[/red]: {escape(report[step.name]['failed'])}")
        path = json_path or RESULTS / f"{_gpu_name(report)}-{report['date']}.json"
        if not dry_run or json_path is not None:  # after each step, so that an interrupted run keeps what it measured
            path.write_text(json_text(report, indent=1) + "\n")
            path.with_suffix(".md").write_text(markdown(report))
    console.print(markdown(report), markup=False)
    sys.exit(1 if any("failed" in report.get(step.name, {}) for step in STEPS) else 0)


def _gpu_name(report: Report) -> str:
    """`h100`, `h200`, .. out of CUDA's name of the device."""
    name = str(report.get("machine", {}).get("gpu", "gpu")).lower()
    found = re.search(r"\b[a-z]{1,3}\d{2,4}\b", name)
    return found[0] if found else "gpu"
