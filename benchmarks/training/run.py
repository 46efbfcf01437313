"""A full training step (generator and discriminator, all losses), codebook form against dense, in the same run.

    python -m benchmarks.training --preset coco --labels DIR --json out.json

Each contender runs in a process of its own, so that its peak memory is its own. Images, starting weights and VGG19's
weights are random, since no cost depends on their values. Plans are made before a step, as the loader's processes do in
training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.maps import labels_name
from benchmarks.common.report import write_report
from benchmarks.training.gradients import Gradients, gradients
from benchmarks.training.measure import CODEBOOK, CONTENDERS, Row, measure
from benchmarks.training.setting import Setting
from spade_core.config import PRESETS
from trainer.precision import choose_precision
from trainer.processes import device_kind

GRADIENTS = "gradients"  # a child process beside the contenders: it compares gradients and times nothing


def worker(task: dict[str, Any]) -> None:
    """Run one contender, or compare the gradients, in a child process; writes the result to task["out"]."""
    setting = Setting(**task["setting"])
    if task["name"] == GRADIENTS:
        result: Any = [asdict(one) for one in gradients(setting)]
    else:
        result = asdict(measure(task["name"], setting))
    Path(task["out"]).write_text(json.dumps(result))


def run(setting: Setting) -> Iterator[tuple[str, Any]]:
    """(name, result) of each child process, one after the other; a child that fails ends the run."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (*CONTENDERS, GRADIENTS):
            out = Path(folder, "result.json")
            task = json.dumps({"setting": asdict(setting), "name": name, "out": str(out)})
            done = subprocess.run([sys.executable, "-m", "benchmarks.training", "--worker", task], check=False)
            if done.returncode:
                sys.exit(f"error: '{name}' ended with status {done.returncode}; its reason is above")
            yield name, json.loads(out.read_text())


def table(rows: list[Row], found: list[Gradients]) -> list[Table]:
    """The terminal's tables: the contenders, each with its ratio to the codebook form; then the gradients."""
    ours = next((row for row in rows if row.name == CODEBOOK), None)
    steps = Table("step", "precision", box=None)
    for heading in ("batch", "seconds", "min..max", "ratio", "CPU s", "ratio", "GMAC an image", "peak MB"):
        steps.add_column(heading, justify="right")
    for row in rows:
        steps.add_row(
            row.name, row.precision, str(row.batch), f"{row.seconds_median:.2f}",
            f"{row.seconds_min:.2f}..{row.seconds_max:.2f}",
            f"{row.seconds_median / ours.seconds_median:.2f}x" if ours else "",
            f"{row.cpu_seconds:.2f}", f"{row.cpu_seconds / ours.cpu_seconds:.2f}x" if ours else "",
            f"{row.gmac:.0f}", f"{row.peak_mb:.0f}",
        )  # fmt: skip
    differences = Table("gradients against dense fp64", "precision", "all", "worst parameter", box=None)
    for one in found:
        differences.add_row(one.form, one.precision, f"{one.all:.1e}", f"{one.worst:.1e} {one.worst_name}")
    return [steps, differences]


@click.command()
@click.option(
    "--preset",
    type=click.Choice([name for name, config in PRESETS.items() if not config.style]),
    default="coco",
    show_default=True,
    help="Generator; one without a style, since the paper's step here has no encoder.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of label maps, or one holding label/ and inst/. Without it, drawn maps.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images in a step.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of a step.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Timed steps of each.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each; default: all cores.")
@click.option("--no-vgg", is_flag=True, help="Leave the perceptual loss out.")
@click.option("--size", type=click.IntRange(32), help="Height and width instead of the preset's.")
@click.option("--nf", type=click.IntRange(2), help="Width instead of the preset's.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
@click.option("--worker", "task", hidden=True, help="One contender, as the parent process asks for it.")
def main(  # noqa: PLR0913 - click passes each option as a parameter, and `Setting` takes them from here
    preset: str, labels: str | None, batch: int, precision: str, repeats: int, threads: int | None, no_vgg: bool,
    size: int | None, nf: int | None, json_path: Path | None, task: str | None,
) -> None:  # fmt: skip
    """Time a training step in both forms on the same maps, and compare memory and gradients."""
    if task:
        worker(json.loads(task))
        return
    screen = console()
    if precision == "bf16" and choose_precision("bf16", device_kind("auto")).warning:
        screen.print("bf16 left out: this processor cannot multiply in bf16 at speed; fp32 is measured instead")
        precision = "fp32"
    sizes = {"height": size, "width": size, "nf": nf}
    setting = Setting(
        preset, labels, batch, precision, repeats, threads or len(os.sched_getaffinity(0)), not no_vgg,
        {field: value for field, value in sizes.items() if value is not None},
    )  # fmt: skip
    rows: list[Row] = []
    found: list[Gradients] = []
    for name, result in run(setting):
        screen.print(f"measured {name}")
        if name == GRADIENTS:
            found = [Gradients(**one) for one in result]
        else:
            rows.append(Row(**result))
        if json_path:  # after each, so that an interrupted run keeps what it measured
            report = {
                "spec": asdict(replace(setting, labels=labels_name(labels))),
                "rows": [asdict(row) for row in rows],
                "gradients": [asdict(one) for one in found],
            }
            write_report(json_path, report)
    for one in table(rows, found):
        screen.print(one)
