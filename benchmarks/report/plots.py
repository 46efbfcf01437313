"""Plots of a report as SVG, drawn by matplotlib: lines with markers, distributions, bars."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = tuple[Sequence[float], Sequence[float]]
_BINS = 60


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        kind: `lines` of series (x, y); `distribution` of series (values, none), a histogram beside its CDF.
        series: by the name in the legend.
        log: axes with a logarithmic scale, `x`, `y`, both or none; `b` is x with a mark at each value, for batch sizes.
        marks: horizontal lines, by name.
    """

    kind: Literal["lines", "distribution"]
    caption: str
    x: str
    y: str
    series: Mapping[str, Points]
    log: str = ""
    marks: Mapping[str, float] = field(default_factory=dict)


def svg(plot: Plot) -> str:
    """The plot as an SVG element. Text stays text, so that it can be searched and read aloud."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "spade", "font.size": 10, "axes.spines.top": False,
                "axes.spines.right": False, "font.family": "sans-serif"}  # fmt: skip
    with mpl.rc_context(settings):
        if plot.kind == "distribution":
            figure = Figure(figsize=(10.5, 3.6), layout="constrained")
            left, right = figure.subplots(1, 2)
            _distribution(left, right, plot)
        else:
            figure = Figure(figsize=(10.5, 4.2), layout="constrained")
            _lines(figure.subplots(), plot)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg )", "", file.getvalue(), count=1, flags=re.DOTALL)


def _lines(axes: Axes, plot: Plot) -> None:
    for name, (x, y) in plot.series.items():
        axes.plot(x, y, marker="o", markersize=4, label=name)
    for name, value in plot.marks.items():
        axes.axhline(value, color="0.5", linestyle="--", linewidth=1, label=name)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    if "x" in plot.log:
        axes.set_xscale("log")
    if "b" in plot.log:
        axes.set_xscale("log", base=2)
        ticks = sorted({value for x, _ in plot.series.values() for value in x})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    if "y" in plot.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if plot.series or plot.marks:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))


def _distribution(histogram: Axes, cdf: Axes, plot: Plot) -> None:
    values = {name: np.sort(np.asarray(found, np.float64)) for name, (found, _) in plot.series.items() if len(found)}
    if values:
        low, high = min(one[0] for one in values.values()), max(one[-1] for one in values.values())
        low = max(low, high * 1e-6)
        edges = np.geomspace(low, max(high, low * 1.001), _BINS + 1)
        for name, one in values.items():
            share = np.histogram(one, edges)[0] / len(one)
            histogram.stairs(share, edges, label=name)
            cdf.step(one, np.arange(1, len(one) + 1) / len(one), where="post", label=name)
        for axes in (histogram, cdf):
            axes.set_xscale("log")
    for axes, label in ((histogram, "share of requests"), (cdf, "share at or below")):
        axes.set_xlabel(plot.x)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    if values:
        cdf.set_ylim(0, 1.02)
        cdf.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
