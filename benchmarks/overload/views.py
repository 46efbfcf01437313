"""Tables and plots of a report of `benchmarks.overload`."""

from __future__ import annotations

from benchmarks.load.figures import mean_batch
from benchmarks.report.output import Drawn
from benchmarks.report.plots import Plot
from benchmarks.report.report import Report
from benchmarks.report.views import View, missing_view, ms, number

_OVERLOAD = (
    "server, door", "load", "offered/s", "goodput/s", "of most", "p50 ms", "p95", "p99", "p99.9", "refused",
    "refusal p50 ms", "p99", "gave up", "failed", "engine batch", "late",
)  # fmt: skip
_FLOOD = ("server, door", "load", "small p50 ms", "p99", "small/s", "flood/s", "flood p50 ms", "requests", "lost")


def views(report: Report) -> list[View]:
    """Goodput under overload, then the small client beside the flood, then what is missing."""
    loads = [row for row in report.rows if row["scenario"] == "overload"]
    most: dict[str, float] = {}
    for row in loads:
        most[row["name"]] = max(most.get(row["name"], 0.0), row["goodput_images_s"])
    cells = [
        (
            row["name"], row["case"], f"{row['offered_images_s']:.1f}", f"{row['goodput_images_s']:.1f}",
            f"{row['goodput_images_s'] / most[row['name']]:.0%}" if most[row["name"]] else "",
            *(ms(row[name]) for name in ("p50_s", "p95_s", "p99_s", "p999_s")),
            _share(row["refused"], row["requests"]), ms(row["refusal_p50_s"]), ms(row["refusal_p99_s"]),
            _share(row["timed_out"], row["requests"]), str(row["failed"]), number(mean_batch(row), ".2f"),
            ms(row["late_s"]),
        )
        for row in loads
    ]  # fmt: skip
    floods = [
        (
            row["name"], row["case"], ms(row["small_p50_s"]), ms(row["small_p99_s"]), f"{row['small_images_s']:.2f}",
            f"{row['flood_images_s']:.2f}", ms(row["flood_p50_s"]), str(row["small_requests"]),
            str(row["small_refused"]),
        )
        for row in report.rows
        if row["scenario"] == "flood"
    ]  # fmt: skip
    deadline = report.setup["deadline_s"]
    found = [View(f"arrivals at shares of capacity; clients give up after {deadline:g} s", _OVERLOAD, cells, 2)]
    if floods:
        found.append(View("a client of single maps beside clients of batches", _FLOOD, floods, 2))
    if report.missing:
        found.append(missing_view(report.missing))
    return found


def plots(report: Report) -> list[Plot]:
    """Goodput by offered load, in shares of each server's capacity, and the latency of what was answered."""
    rows = [row for row in report.rows if row["scenario"] == "overload"]
    goodput: dict[str, tuple[list[float], list[float]]] = {}
    latency: dict[str, tuple[list[float], list[float]]] = {}
    for row in sorted(rows, key=lambda row: float(row["share"])):
        for into, value in (
            (goodput, 100 * row["goodput_images_s"] / row["capacity_images_s"]),
            (latency, None if row["p99_s"] is None else 1e3 * row["p99_s"]),
        ):
            if value is not None:
                x, y = into.setdefault(row["name"], ([], []))
                x.append(100 * row["share"])
                y.append(value)
    deadline = 1e3 * report.setup["deadline_s"]
    return [
        Plot("lines", "Goodput: answered within the deadline.", "offered load, % of capacity",
             "goodput, % of capacity", goodput),
        Plot("lines", "p99 of what was answered, from the planned sending.", "offered load, % of capacity", "ms",
             latency, "y", {"deadline": deadline}),
    ]  # fmt: skip


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""


DRAWN = Drawn(views, plots)
