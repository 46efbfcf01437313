"""The goodput of one or several reports of `benchmarks.overload` as one SVG.

python -m benchmarks.overload.picture gateway.json triton.json goodput.svg
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.overload.views import plots
from benchmarks.report.plots import svg
from benchmarks.report.report import Report
from serving.cli.console import Command
from serving.cli.options import FILE, OUT_FILE


@click.command(cls=Command)
@click.argument("reports", nargs=-1, type=FILE, required=True)
@click.argument("picture", type=OUT_FILE)
def main(reports: tuple[Path, ...], picture: Path) -> None:
    """Draw the goodput of REPORTS, each server and door a line, into PICTURE."""
    read = [Report.read(path, "overload") for path in reports]
    whole = Report("overload", read[0].setup, [row for report in read for row in report.rows])
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(svg(plots(whole)[0]))


if __name__ == "__main__":
    main()
