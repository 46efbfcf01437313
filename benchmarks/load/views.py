"""Tables and plots of a report of `spade bench server`."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.load.figures import mean_batch
from benchmarks.report.output import Drawn
from benchmarks.report.plots import Plot
from benchmarks.report.report import Report, Row
from benchmarks.report.views import View, missing_view, ms, number

_COLUMNS = (
    "load", "case", "images/s", "offered", "p50 ms", "p90", "p95", "p99", "p99.9", "not answered", "queue", "engine",
    "outside", "engine batch", "late", "requests",
)  # fmt: skip


def views(report: Report) -> list[View]:
    """The loops, then what the searches found, then what is missing and why."""
    loops = [_cells(row) for row in report.rows if "requests" in row]
    found = [
        (row["name"], row["case"], f"{row['rate']:.3g}", f"{row['rate'] * row['batch']:.3g}")
        for row in report.rows
        if row["mode"] in {"knee", "slo"}
    ]
    shown = [View("latency from the planned sending, medians of queue, engine and outside in ms", _COLUMNS, loops, 2)]
    if found:
        shown.append(View("the highest rate that holds", ("", "case", "requests/s", "images/s"), found, 2))
    if report.missing:
        shown.append(missing_view(report.missing))
    return shown


def _cells(row: Row) -> Sequence[str]:
    lost = row["requests"] - row["answered"]
    return (
        row["name"], row["case"], f"{row['images_s']:.2f}",
        "" if row["mode"] == "closed" else f"{row['offered_images_s']:.2f}",
        *(ms(row[name]) for name in ("p50_s", "p90_s", "p95_s", "p99_s", "p999_s")),
        f"{lost / row['requests']:.1%}" if row["requests"] else "",
        *(ms(row[name]) for name in ("queue_s", "engine_s", "outside_s")),
        number(mean_batch(row), ".2f"), ms(row["late_s"]), str(row["requests"]),
    )  # fmt: skip


def plots(report: Report) -> list[Plot]:
    """Throughput against latency, latency against the offered rate, distributions, batches that the engine ran."""
    loops = [row for row in report.rows if "requests" in row and row["p50_s"] is not None]
    against: dict[str, tuple[list[float], list[float]]] = {}
    for row in sorted(loops, key=lambda row: float(row.get("clients") or row.get("rate") or 0)):
        for name, share in (("p50", "p50_s"), ("p99", "p99_s")):
            x, y = against.setdefault(f"{row['name']}, batch {row['batch']}, {name}", ([], []))
            x.append(row["images_s"])
            y.append(1e3 * row[share])
    spread: dict[str, tuple[list[float], list[float]]] = {
        f"{row['name']}, {row['case']}": (row["latencies_ms"], []) for row in loops if row["mode"] != "sweep"
    }
    sizes = {
        f"{row['name']}, {row['case']}": ([float(size) for size in row["batch_sizes"]],
                                          list(row["batch_sizes"].values()))
        for row in loops if row["batch_sizes"] and row["mode"] != "sweep"
    }  # fmt: skip
    found = [
        Plot("lines", "Throughput against latency.", "images/s", "ms", against, "y"),
        Plot("distribution", "Latency from the planned sending: histogram and CDF.", "ms", "", spread),
    ]
    if sizes:
        found.append(Plot("lines", "Batches that the engine ran.", "label maps in a batch", "batches", sizes))
    return found


DRAWN = Drawn(views, plots)
