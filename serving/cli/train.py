"""`spade train` and `spade scenes`: each a thin layer over a function."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from trainer.loop import Progress

_stdout, _stderr = Console(highlight=False), Console(stderr=True, highlight=False)
_SHOWN = ("gan", "feature_matching", "kl", "discriminator")


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change a field; may be repeated."
)
@click.option("--out", metavar="DIR", help="Short for --set run.out=DIR.")
@click.option("--dry-run", is_flag=True, help="Read the data, build everything, take one step; write nothing.")
@click.option("--export-only", is_flag=True, help="Write weights, samples and report of the newest checkpoint.")
@click.option("--fields", is_flag=True, help="List every field of a configuration with its default, and end.")
def train(
    config: Path | None, overrides: tuple[str, ...], out: str | None, dry_run: bool, export_only: bool, fields: bool
) -> None:
    """Train a generator by a TOML file; run the same command again to resume.

    Several GPUs or machines: put `torchrun --nproc-per-node N -m serving.cli.main` in the place of `spade`.

    \b
    spade train configs/demo.toml
    spade train configs/coco.toml --set data.root=coco --set optim.batch=8
    spade serve --weights out/demo/weights.safetensors
    """
    from trainer.config_file import load_config

    if fields:
        _show_fields()
        return
    if config is None:
        raise click.UsageError("give a configuration: spade train configs/demo.toml")
    if out is not None:
        overrides = (*overrides, f"run.out={out}")
    with errors_as_messages("run the same command again to resume"):
        run = load_config(config, overrides)
        if dry_run:
            from trainer.loop import dry_run as check

            table = Table(show_header=False, box=None)
            for name, value in check(run).items():
                table.add_row(name, value)
            _stdout.print(table)
        elif export_only:
            from trainer.loop import export_only as export

            _stdout.print(f"{export(run)} written", markup=False, soft_wrap=True)
        else:
            _train(run)


def _train(config: Any) -> None:
    from trainer.loop import train as run

    with _TrainBar() as bar:
        result = run(config, bar.show)
    if bar.quiet:
        return
    if not result.finished:
        _stderr.print(f"stopped at step {result.step} of {result.steps}; run the same command again to resume")
        sys.exit(130)
    for name in ("weights.safetensors", "report.html"):
        _stdout.print(f"{result.folder / name} written", markup=False, soft_wrap=True)


class _TrainBar:
    """A progress bar with images a second and time left; where there is no terminal, a line a row of statistics."""

    def __init__(self) -> None:
        self.quiet = os.environ.get("RANK", "0") != "0"
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_stderr,
            disable=self.quiet or not _stderr.is_terminal,
        )
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
    from trainer.config_file import field_table

    table = Table("field", "default", "what it does", box=None)
    for name, default, text in field_table():
        table.add_row(name, default, text)
    _stdout.print(table)


@click.command()
@click.option("--count", type=click.IntRange(1), default=16, show_default=True, help="Scenes.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--size", default="256", show_default=True, metavar="SIZE", help="Pixels: a side, or HEIGHTxWIDTH.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first scene.")
@click.option("--style", help="noon, sunset, night, winter, ...; drawn from the seed without it.")
def scenes(count: int, out: Path, size: str, seed: int, style: str | None) -> None:
    """Draw landscapes to play with: label maps, images, and a sheet of both.

    The folder is one that `spade train` (layout `folder`) and `spade synthesize` read. Seeds below a million are never
    trained on.

    \b
    spade scenes --count 16 --out out/scenes
    spade synthesize out/scenes/labels --out out/images
    """
    from rich.progress import track

    from trainer.scenes.files import parse_size, write_scenes

    with errors_as_messages("the scenes written so far are whole"):
        height, width = parse_size(size)
        written = write_scenes(out, count, height=height, width=width, seed=seed, style=style)
        for _ in track(
            written, "scenes", total=count, console=_stderr, disable=not _stderr.is_terminal, transient=True
        ):
            pass
        _stdout.print(f"{count} scenes and {out / 'contact_sheet.png'} written", markup=False, soft_wrap=True)


class errors_as_messages:
    """An expected error ends the command with its message and exit status 1; a bug keeps its traceback."""

    def __init__(self, when_interrupted: str) -> None:
        self._when_interrupted = when_interrupted

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ValueError | OSError | RuntimeError) and not isinstance(error, click.exceptions.Exit):
            _stderr.print(f"error: {error}", markup=False, soft_wrap=True)
            sys.exit(1)
        if isinstance(error, KeyboardInterrupt):
            _stderr.print(f"interrupted: {self._when_interrupted}")
            sys.exit(130)
