"""Where the report of a benchmark goes, and the report that it is compared with: options of every subcommand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.console import note, say, stdout
from serving.cli.options import FILE, OUT_FILE, option

if TYPE_CHECKING:
    from benchmarks.report.plots import Plot
    from benchmarks.report.report import Report
    from benchmarks.report.views import View


@dataclass(frozen=True)
class Output:
    """The files of a report."""

    json_file: Path | None = option("--json", type=OUT_FILE, help="Write the report as JSON; the docs have its schema.")
    markdown_file: Path | None = option("--markdown", type=OUT_FILE, help="Write the tables as Markdown.")
    html_file: Path | None = option(
        "--html", type=OUT_FILE, help="Write one HTML file with tables and plots, which loads nothing from elsewhere."
    )
    compare: Path | None = option(
        "--compare", type=FILE, metavar="OLD.json",
        help="Show ratios to an older report, with intervals of 95 % by bootstrap over paired turns.",
    )  # fmt: skip
    relative_to: str | None = option(
        "--relative-to", metavar="NAME",
        help="With --compare: divide each turn by this contender's turn of the same run, so that the speed of the "
        "machine cancels.",
    )  # fmt: skip
    max_regression: float | None = option(
        "--max-regression", type=click.FloatRange(0), metavar="SHARE",
        help="With --compare: exit with status 1 where a row is worse by more than this share (0.05: 5 %) and its "
        "interval leaves no doubt that it is worse.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, value in (("--relative-to", self.relative_to), ("--max-regression", self.max_regression)):
            if value is not None and self.compare is None:
                raise click.UsageError(f"{name}: give --compare OLD.json too")

    def read_old(self, kind: str) -> Report | None:
        """The report of `--compare`; read before anything is measured. Also imports what the output needs."""
        from benchmarks.report.report import Report

        if self.html_file is not None:
            import matplotlib  # noqa: F401 - a missing package must be known before the run
        return None if self.compare is None else Report.read(self.compare, kind)


@dataclass(frozen=True)
class Drawn:
    """How a kind of report is shown."""

    views: Callable[[Report], Sequence[View]]
    plots: Callable[[Report], Sequence[Plot]]


def finish(report: Report, drawn: Drawn, output: Output, old: Report | None) -> None:
    """Print and write the report and its comparison. Ends with status 1 past `--max-regression`."""
    from benchmarks.report.compare import changes_view, compare, differences
    from benchmarks.report.document import markdown, page
    from benchmarks.report.noise import noise_line

    views = list(drawn.views(report))
    changes = [] if old is None else compare(old, report, output.relative_to)
    if old is not None:
        views.append(changes_view(changes, old, output.max_regression))
    for view in views:
        stdout().print(view.rich())
    say(noise_line(report.noise))
    for text in [] if old is None else differences(old, report):
        say(f"differs from {output.compare}: {text}")
    writes: list[tuple[Path | None, Callable[[Path], object]]] = [
        (output.json_file, report.write),
        (output.markdown_file, lambda path: path.write_text(markdown(report, views))),
        (output.html_file, lambda path: path.write_text(page(report, views, drawn.plots(report)))),
    ]
    for path, write in writes:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            note(f"{path} written")
    worse = [one for one in changes if output.max_regression is not None and one.past(output.max_regression)]
    if worse:
        note(f"error: {len(worse)} of {len(changes)} measures are worse by more than {output.max_regression:.1%}")
        sys.exit(1)
