"""A roofline plot of the kernels from the JSON of benchmarks.cpu_kernels.

    python -m benchmarks.cpu_kernels.roofline kernels.json roofline.png

Each dtype has one panel, of its fastest ISA. The horizontal axis is operations per byte that must at least move, the
vertical axis operations per second (roofline: Williams, Waterman and Patterson, 2009). Kernels without operations, such
as the plan, have no dot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

WIDTH, PANEL_HEIGHT, DPI = 9.0, 6.5, 100  # inches; 900 pixels wide
COLOURS = ("#0072b2", "#c04f00", "#a87400", "#00805d", "#b0508a", "#2f8fc4", "#000000")  # for colour-blind eyes too
DISTANCES = (7, 14, 24, 36, 50, 66, 84, 104)  # distances of a label from its dot that are tried, points
DIRECTIONS = 24  # directions that are tried

Report = dict[str, Any]
Dot = tuple[str, str, float, float]
"""(kernel, label, operations per byte, GFLOP/s)."""


def panels(report: Report) -> dict[str, str]:
    """Return {dtype: its fastest ISA}, without int8. The report lists ISAs from slow to fast."""
    isas = report["peak_gflop_per_s_per_core"]
    return {row["dtype"]: row["isa"] for row in report["rows"] if row["isa"] in isas and row["dtype"] != "int8"}


def dots(report: Report, isa: str) -> list[Dot]:
    """Return the dots of a panel. Raises ValueError for an ISA without rows."""
    found = [
        (row["kernel"], _label(row["shape"]), row["operations"] / row["bytes"], row["gflop_per_s"])
        for row in report["rows"]
        if row["isa"] == isa and row["operations"] and row["dtype"] != "int8"  # int8 has another peak
    ]
    if not found:
        raise ValueError(f"[roofline] expected rows of {isa} but got none; run benchmarks.cpu_kernels for this ISA")
    return found


def _label(shape: str) -> str:
    """ "1024->512 32x32 upsampled" -> "1024→512 @32", a short label for a dot."""
    words = shape.replace("->", "→").removesuffix(" upsampled").replace(" patches", "").split()
    side = words[-1].split("x")[0]
    return f"{' '.join(words[:-1])} @{side}"


def draw(report: Report) -> Figure:
    """Draw the whole figure."""
    of = panels(report)
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * len(of)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(of), squeeze=False)[:, 0]
    shown = [dots(report, isa) for isa in of.values()]
    kernels = list(dict.fromkeys(dot[0] for panel in shown for dot in panel))
    colours = {kernel: COLOURS[i % len(COLOURS)] for i, kernel in enumerate(kernels)}
    texts = []
    for one, (dtype, isa), panel in zip(axes, of.items(), shown, strict=True):
        peak = report["peak_gflop_per_s_per_core"][isa] * report["threads"]
        one.set_title(f"{dtype} ({isa}), {report['threads']} threads, {report['machine']['cpu']}", fontsize=10)
        _roofs(one, peak, report["copy_gb_per_s"], panel)
        for kernel, of_kernel in colours.items():
            points = [dot[2:] for dot in panel if dot[0] == kernel]
            one.scatter(*np.array(points).reshape(-1, 2).T, s=26, color=of_kernel, label=kernel, zorder=3)
        texts.append([_text(one, dot, colours[dot[0]]) for dot in panel])
        one.legend(fontsize=8, loc="lower right", title="channels (embed: patches) @ height", title_fontsize=8)
    figure.canvas.draw()  # fixes the axes, so that `place` can measure where labels have room
    for one, panel, of_panel in zip(axes, shown, texts, strict=True):
        place(one, panel, of_panel)
    return figure


def _text(axes: Axes, dot: Dot, colour: str) -> Annotation:
    _, label, intensity, rate = dot
    line = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 2}
    return axes.annotate(
        label, (intensity, rate), (0, 0), textcoords="offset points", fontsize=7.5, color=colour, ha="center",
        va="center", arrowprops=line, zorder=4,
    )  # fmt: skip


def _roofs(axes: Axes, peak: float, copy: dict[str, float], panel: Sequence[Dot]) -> None:
    """Draw the upper bounds, the peak and the copies, and set the limits of the axes."""
    left, right = min(dot[2] for dot in panel) / 3, max(dot[2] for dot in panel) * 3
    bottom, top = min(dot[3] for dot in panel) / 2, peak * 4  # labels find room above the peak
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    axes.set_xlabel("operations per byte", fontsize=9)
    axes.set_ylabel("GFLOP/s", fontsize=9)
    axes.grid(which="major", color="#e4e4e4", lw=0.6)
    fastest = max(copy.values())
    axes.plot([peak / fastest, right], [peak, peak], color="#444444", lw=1.2)
    axes.text(peak / fastest, peak * 1.1, f"multiply-add peak {peak:.0f} GFLOP/s", fontsize=8)
    for name, rate in copy.items():
        start = max(left, bottom / rate)
        axes.plot(
            [start, peak / rate], [start * rate, peak], color="#444444", lw=1.2, ls="-" if name == "memory" else "--"
        )
        middle = (start * peak / rate) ** 0.5
        axes.text(
            middle, middle * rate * 1.12, f"copy, {name} {rate:.0f} GB/s", fontsize=8, ha="center", va="bottom",
            rotation=_angle(axes), rotation_mode="anchor",
        )  # fmt: skip


def _angle(axes: Axes) -> float:
    """The angle on the page, in degrees, of a line of slope one on these logarithmic axes."""
    (x0, x1), (y0, y1) = np.log(axes.get_xlim()), np.log(axes.get_ylim())
    return float(np.degrees(np.arctan2(PANEL_HEIGHT * 0.86 / (y1 - y0), WIDTH * 0.9 / (x1 - x0))))


# ---- Labels ----


def place(axes: Axes, panel: Sequence[Dot], texts: Sequence[Annotation]) -> None:
    """Move every label to the nearest place around its dot where it covers no dot, label or legend."""
    figure = axes.get_figure()
    assert figure is not None
    to_points = 72 / DPI
    centres = axes.transData.transform([dot[2:] for dot in panel]) * to_points
    taken = [Bbox.from_extents(x - 3, y - 3, x + 3, y + 3) for x, y in centres]
    legend = axes.get_legend()
    fixed = [*axes.texts[: len(axes.texts) - len(texts)], *([] if legend is None else [legend])]
    taken += [_points(artist.get_window_extent()) for artist in fixed]
    taken.append(_points(axes.lines[0].get_window_extent()).padded(1.5))  # the line of the peak
    inside = _points(axes.get_window_extent())
    for (x, y), text in sorted(zip(centres, texts, strict=True), key=lambda pair: -pair[0][1]):
        box = _points(Text.get_window_extent(text))
        half = (box.width / 2 + 1, box.height / 2)
        best = min(_offsets(half), key=lambda at: _cost(at, (x, y), half, taken, inside))
        text.set_position(best)
        taken.append(_around(x + best[0], y + best[1], half))


def _offsets(half: tuple[float, float]) -> list[tuple[float, float]]:
    """Candidate places of a label's centre around its dot, in points: rings, each wide enough for the label."""
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    return [
        ((distance + half[0] - half[1]) * float(np.cos(angle)), distance * float(np.sin(angle)))
        for distance in DISTANCES
        for angle in angles
    ]


def _cost(
    at: tuple[float, float], dot: tuple[float, float], half: tuple[float, float], taken: Sequence[Bbox], inside: Bbox
) -> float:
    """The distance from the dot, plus 20 for every square point that covers something or lies outside the panel."""
    box = _around(dot[0] + at[0], dot[1] + at[1], half)
    covered = sum(_area(Bbox.intersection(box, other)) for other in taken)
    outside = box.width * box.height - _area(Bbox.intersection(box, inside))
    return float(np.hypot(*at)) + 20 * (covered + outside)


def _around(x: float, y: float, half: tuple[float, float]) -> Bbox:
    return Bbox.from_extents(x - half[0], y - half[1], x + half[0], y + half[1])


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else float(box.width * box.height)


def _points(box: Bbox) -> Bbox:
    """Pixels -> points."""
    return Bbox(box.get_points() * 72 / DPI)


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("image", type=click.Path(dir_okay=False, path_type=Path))
def main(report: Path, image: Path) -> None:
    """Plot the PNG file IMAGE from REPORT, the file that benchmarks.cpu_kernels wrote with --json."""
    read = json.loads(report.read_text())
    figure = draw(read | read.get("context", {}))  # a report of 2026-11-26 has the facts of its context at its top
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, format="png", dpi=DPI)


if __name__ == "__main__":
    main()
