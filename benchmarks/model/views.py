"""Tables and plots of a report of `spade bench model`."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.model.contenders import OURS, SESSIONS
from benchmarks.model.run import fastest_of_ours
from benchmarks.report.intervals import paired_ratio
from benchmarks.report.output import Drawn
from benchmarks.report.plots import Plot
from benchmarks.report.report import Report, Row
from benchmarks.report.views import View, missing_view, ms, number

_COLUMNS = ("contender", "form", "ms", "min .. max", "images/s", "to ours", "max error", "PSNR dB")


def views(report: Report) -> list[View]:
    """A table for each batch size, the fastest first; then what is missing and why."""
    batches = sorted({row["batch"] for row in report.rows})
    found = [_of_batch(batch, [row for row in report.rows if row["batch"] == batch]) for batch in batches]
    if report.missing:
        found.append(missing_view(report.missing))
    return found


def _of_batch(batch: int, rows: Sequence[Row]) -> View:
    best = fastest_of_ours(rows)
    cells = []
    for row in sorted(rows, key=lambda row: float(row["seconds_median"])):
        ratio = None if best is None else paired_ratio(row["measures"]["seconds"], best["measures"]["seconds"])
        cells.append(
            (
                f"{row['name']} (ours)" if row["name"] in OURS + SESSIONS else row["name"],
                row["form"],
                ms(row["seconds_median"]),
                f"{ms(row['seconds_min'])} .. {ms(row['seconds_max'])}",
                f"{batch / row['seconds_median']:.3g}",
                "" if ratio is None or row is best else str(ratio),
                number(row["max_error"], ".1e"),
                number(row["psnr_db"], ".1f"),
            )
        )
    return View(f"batch {batch}: time of a batch; ratio to our fastest, 95 % interval", _COLUMNS, cells, words=2)


def plots(report: Report) -> list[Plot]:
    """How time grows with the batch, throughput against latency, and the spread of calls."""
    names = list(dict.fromkeys(row["name"] for row in report.rows))
    of = {name: sorted((r for r in report.rows if r["name"] == name), key=lambda r: int(r["batch"])) for name in names}
    per_image = {
        name: ([row["batch"] for row in rows], [1e3 * row["seconds_median"] / row["batch"] for row in rows])
        for name, rows in of.items()
    }
    against = {
        name: (
            [1e3 * row["seconds_median"] for row in rows],
            [row["batch"] / row["seconds_median"] for row in rows],
        )
        for name, rows in of.items()
    }
    first = min((row["batch"] for row in report.rows), default=1)
    turns: dict[str, tuple[list[float], list[float]]] = {
        row["name"]: ([1e3 * value for value in row["measures"]["seconds"]], [])
        for row in report.rows
        if row["batch"] == first
    }
    return [
        Plot("lines", "Batch scaling: time of an image.", "maps in a batch", "ms an image", per_image, "by"),
        Plot("lines", "Throughput against latency; a point a batch size.", "ms a batch", "images/s", against, "xy"),
        Plot("distribution", f"Turns at batch {first}: histogram and CDF.", "ms a batch", "", turns),
    ]


DRAWN = Drawn(views, plots)
