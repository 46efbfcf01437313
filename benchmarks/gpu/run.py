"""The GPU benchmark in one command: `benchmarks/gpu/gpu.sh --labels DIR`.

It ends within 570 s. Each step runs in a process of its own with its own share of the time, so that a step that crashes
or hangs costs only its own figures. Report and table are written whenever a step has a new row.
"""

from __future__ import annotations

import re
import sys
import time
from datetime import date
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.options import labels_option
from benchmarks.gpu.setting import Report, Setting
from benchmarks.gpu.steps import BUDGET_S, STEPS, Step, measure, run_step
from spade_core.files.strict_json import json_text
from spade_core.files.whole_file import write_whole

REHEARSED_SLOWER = 6  # times the limits of a step: emulated kernels on a busy machine


@click.command()
@labels_option()
@click.option("--rehearse", is_flag=True, help="Run every step on the CPU, on small inputs and emulated kernels.")
@click.option("--only", help="Steps to run, separated by commas.  [default: all but training]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("benchmarks", "results"),
    show_default=True, help="Folder of the figures (GPU-DATE.json) and the table (GPU-DATE.md).",
)  # fmt: skip
@click.option("--rehearsed", type=click.Path(exists=True, dir_okay=False, path_type=Path), hidden=True)
@click.option("--step", "step_name", hidden=True, help="Run one step in this process.")
@click.option("--seconds", type=int, default=60, hidden=True, help="Longest time of that step.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), hidden=True)
def main(
    labels: Path | None, rehearse: bool, only: str | None, out: Path, rehearsed: Path | None, step_name: str | None,
    seconds: int, json_path: Path | None,
) -> None:  # fmt: skip
    """Check and measure all kernels and the generator on a GPU; exit with 1 if a step fails."""
    if step_name is not None:
        sys.exit(_own_step(step_name, Setting(labels, time.monotonic() + seconds, rehearsed, json_path)))
    steps = _wanted(only)
    if rehearse and rehearsed is None:
        from benchmarks.gpu.rehearsal import emulated_library

        with emulated_library() as library:
            sys.exit(_run(steps, Setting(labels, 0.0, library), out))
    sys.exit(_run(steps, Setting(labels, 0.0, rehearsed), out))


def _own_step(name: str, setting: Setting) -> int:
    if setting.rehearsed is not None:
        from kernels.cuda.host.library import Library, use

        use(Library(setting.rehearsed, "cpu"))
    report = run_step(name, setting)
    setting.save(report)
    return 1 if report.get("passed") is False else 0


def _wanted(only: str | None) -> list[Step]:
    if only is None:
        return [step for step in STEPS if step.unasked]
    names = only.split(",")
    unknown = sorted(set(names) - {step.name for step in STEPS})
    if unknown:
        raise click.BadParameter(f"expected steps out of {', '.join(s.name for s in STEPS)} but got {unknown[0]}")
    return [step for step in STEPS if step.name in names]


def _run(steps: list[Step], setting: Setting, out: Path) -> int:
    """Run the steps one after another, each within its own time and what is left of the whole; the exit status."""
    from benchmarks.gpu.table import markdown

    slower = 1 if setting.rehearsed is None else REHEARSED_SLOWER
    screen, ends = console(), time.monotonic() + BUDGET_S * slower
    report: Report = {
        "date": date.today().isoformat(), "rehearsal": setting.rehearsed is not None,
        "labels": setting.labels.resolve().name if setting.labels else "drawn",
    }  # fmt: skip
    for step in steps:
        screen.print(f"{step.name}: {step.what}")
        seconds = min(float(step.seconds * slower), ends - time.monotonic())
        if seconds < 1:
            report[step.name] = {"skipped": f"the {BUDGET_S} s of the command are over"}
            continue
        # The report grows in the file while the step runs, so that an interrupted command keeps what it measured.
        report[step.name] = measure(
            step, setting, seconds, lambda rows, name=step.name: _write(out, report | {name: rows})  # type: ignore[misc]
        )  # fmt: skip
        _write(out, report)
        for word, colour in (("failed", "red"), ("skipped", "yellow")):
            if word in report[step.name]:
                screen.print(f"[{colour}]{step.name} {word}[/{colour}]: {escape(str(report[step.name][word]))}")
    screen.print(markdown(report), markup=False, soft_wrap=True)
    screen.print(_budget(steps, report))
    return 1 if any("failed" in report[step.name] for step in steps) else 0


def _budget(steps: list[Step], report: Report) -> Table:
    table = Table("step", "at most s", "took s", title=f"time budget: {BUDGET_S} s")
    for step in steps:
        table.add_row(step.name, str(step.seconds), str(report[step.name].get("wall_s", "")))
    took = sum(report[step.name].get("wall_s", 0.0) for step in steps)
    table.add_row("all", str(sum(step.seconds for step in steps)), f"{took:.1f}")
    return table


def _write(out: Path, report: Report) -> None:
    from benchmarks.gpu.table import markdown

    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{'rehearsal' if report['rehearsal'] else _gpu_name(report)}-{report['date']}.json"
    write_whole(path, lambda draft: draft.write_text(json_text(report, indent=1) + "\n"))
    write_whole(path.with_suffix(".md"), lambda draft: draft.write_text(markdown(report) + "\n"))


def _gpu_name(report: Report) -> str:
    """`h100`, `h200`, .. out of CUDA's name of the device."""
    name = str(report.get("machine", {}).get("gpu", "gpu")).lower()
    found = re.search(r"\b[a-z]{1,3}\d{2,4}\b", name)
    return found[0] if found else "gpu"
