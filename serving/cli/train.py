"""`spade train`: a run of training by a TOML file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.cli.console import INTERRUPTED, Command, bars, note, say, stdout
from serving.cli.options import OUT_FILE, option, options

if TYPE_CHECKING:
    from trainer.loop import Progress

_SHOWN = ("gan", "feature_matching", "kl", "discriminator")


@dataclass(frozen=True)
class Changes:
    """What the command line changes in the configuration."""

    overrides: tuple[str, ...] = option(
        "--set", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change a field; may be repeated."
    )
    out: str | None = option("--out", metavar="DIR", help="Short for --set run.out=DIR.")

    @property
    def fields(self) -> tuple[str, ...]:
        """Every change as SECTION.FIELD=VALUE."""
        return self.overrides if self.out is None else (*self.overrides, f"run.out={self.out}")


@click.command(
    cls=Command, interrupted="run the same command again to resume", short_help="Train a generator by a TOML file."
)
@click.argument("config", type=OUT_FILE, required=False)
@options(Changes, "changes")
@click.option("--dry-run", is_flag=True, help="Read the data, build everything, take one step; write nothing.")
@click.option("--export-only", is_flag=True, help="Write weights, samples and report of the newest checkpoint.")
@click.option("--fields", is_flag=True, help="List every field of a configuration with its default, and end.")
def train(config: Path | None, changes: Changes, dry_run: bool, export_only: bool, fields: bool) -> None:
    """Train a generator by a TOML file; run the same command again to resume.

    Several GPUs or machines: put `torchrun --nproc-per-node N -m serving.cli` in the place of `spade`.

    \b
    spade train configs/demo.toml
    spade train configs/coco.toml --set data.root=coco --set optim.batch=8
    spade serve --weights out/demo/weights.safetensors
    """
    if fields:
        _show_fields()
        return
    if config is None:
        raise click.UsageError("give a configuration: spade train configs/demo.toml")
    from trainer.config_file import load_config

    run = load_config(config, changes.fields)
    if dry_run:
        from rich.table import Table

        from trainer.loop import dry_run as check

        table = Table(show_header=False, box=None)
        for name, value in check(run).items():
            table.add_row(name, value)
        stdout().print(table)
    elif export_only:
        from trainer.loop import export_only as export

        say(f"{export(run)} written")
    else:
        _train(run)


def _train(config: Any) -> None:
    from trainer.loop import train as run
    from trainer.precision import choose_precision
    from trainer.processes import device_kind

    with _TrainBar() as bar:
        if not bar.quiet:
            note(str(choose_precision(config.run.precision, device_kind(config.run.device))))
        result = run(config, bar.show)
    if bar.quiet:
        return
    if not result.finished:
        note(f"stopped at step {result.step} of {result.steps}; run the same command again to resume")
        sys.exit(INTERRUPTED)
    for name in ("weights.safetensors", "report.html"):
        say(f"{result.folder / name} written")


class _TrainBar:
    """A progress bar with images a second and the time left, and a line for each row of statistics.

    Processes other than the first of a distributed run show nothing.
    """

    def __init__(self) -> None:
        from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.quiet = os.environ.get("RANK", "0") != "0"
        rate = TextColumn("{task.fields[rate]}")
        self._bars = bars(rate, TimeElapsedColumn(), TimeRemainingColumn(), transient=False)
        self._bars.disable = self._bars.disable or self.quiet
        self._task = self._bars.add_task("steps", total=None, rate="")
        self._row: dict[str, float] = {}

    def __enter__(self) -> _TrainBar:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def show(self, progress: Progress) -> None:
        """A listener of `trainer.loop.train`."""
        row = progress.row
        rate = f"{row['images_per_second']:.1f} images/s" if row else ""
        self._bars.update(self._task, total=progress.steps, completed=progress.step, rate=rate)
        if row is not self._row and row and not self.quiet:
            self._row = row
            losses = ", ".join(f"{name} {row[name]:.3f}" for name in _SHOWN if name in row)
            self._bars.console.print(f"step {progress.step} of {progress.steps}: {losses}; {rate}", soft_wrap=True)


def _show_fields() -> None:
    from rich.table import Table

    from trainer.config_file import field_table

    table = Table("field", "default", "what it does", box=None)
    for name, default, text in field_table():
        table.add_row(name, default, text)
    stdout().print(table)
