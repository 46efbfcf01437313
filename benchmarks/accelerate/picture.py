"""The picture of docs/accelerate.md: the time of each network before and after `accelerate`, as bars.

python -m benchmarks.accelerate.picture accelerate.json accelerate.svg
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = {"plain": "#b0b0b0", "accelerated": "#0072b2"}
BAR = 0.38  # of the height of a row


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Two bars for each row of the benchmark, in milliseconds, with the ratio behind them. Raises ValueError."""
    if not rows:
        raise ValueError("[picture] expected rows of benchmarks.accelerate but got none; give its JSON file")
    figure = Figure(figsize=(9, 0.4 + 0.62 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for side, (name, colour) in enumerate(COLOURS.items()):
        places = [place + (side - 0.5) * BAR for place in range(len(rows))]
        axes.barh(places, [1e3 * row[f"seconds_{name}"] for row in rows], BAR, color=colour, label=name)
    longest = max(row["seconds_plain"] for row in rows)
    for place, row in enumerate(rows):
        end = 1e3 * max(row["seconds_plain"], row["seconds_accelerated"])
        axes.text(end + 10 * longest, place, f"{row['ratio']:.1f}x", va="center", fontweight="bold")
    axes.set_yticks(range(len(rows)), [f"{row['network']}, {row['size'].replace('x', '×')}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1e3 * 1.1 * longest)
    axes.set_xlabel("time of a call, ms")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
def main(report: Path, picture: Path) -> None:
    """Draw the bars of a report of `python -m benchmarks.accelerate`, as the picture's suffix says (.svg or .png)."""
    # Text stays text, and two runs on one report write the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "spade", "font.family": "sans-serif"}):
        date = {"Date": None} if picture.suffix == ".svg" else None
        draw(json.loads(report.read_text())["rows"]).savefig(picture, metadata=date)


if __name__ == "__main__":
    main()
