"""A report as Markdown and as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from benchmarks.report.noise import noise_line
from benchmarks.report.plots import Plot, svg
from benchmarks.report.report import Report
from benchmarks.report.views import View

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2430;
  background: #fff }
h1, h2 { line-height: 1.2 } table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto } th, td { padding: .25rem .7rem; border-bottom: 1px solid #dde2e8; text-align: right }
td:first-child { white-space: nowrap }
th:nth-child(-n+1), td:nth-child(-n+1), .w2 :is(th, td):nth-child(2), .w3 :is(th, td):nth-child(-n+3) {
  text-align: left }
.noise { padding: .5rem .8rem; border-left: 4px solid #2a9d6f; background: #eef8f3 }
.busy { border-color: #c8452e; background: #fdf0ed } figure { margin: 1.5rem 0 } figure svg { max-width: 100%;
  height: auto } figcaption { color: #56606d }
"""


def title(report: Report) -> str:
    return f"spade bench {report.kind}, {report.machine['date']}"


def facts(report: Report) -> list[tuple[str, str]]:
    """Machine, versions and options, as (name, text)."""
    machine = report.machine
    found = {
        "processor": f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['isa']) or 'no AVX2'})",
        "memory": f"{machine['memory_gb']} GB" if "memory_gb" in machine else "",
        "system": f"{machine.get('system', '')}, Python {machine['python']}",
        "versions": ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        "options": ", ".join(f"{name} {_text(value)}" for name, value in report.setup.items()),
    }
    return [(name, text) for name, text in found.items() if text]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def markdown(report: Report, views: Sequence[View]) -> str:
    """The tables, what is missing and why, the machine and the noise."""
    parts = [f"# {title(report)}\n", f"{noise_line(report.noise)}\n", *(view.markdown() for view in views)]
    parts.append("\n".join(f"- {name}: {text}" for name, text in facts(report)) + "\n")
    return "\n".join(parts)


def page(report: Report, views: Sequence[View], plots: Sequence[Plot]) -> str:
    """One HTML file: plots as SVG inside, tables, machine, versions, noise."""
    name = html.escape(title(report))
    busy = " busy" if report.noise["verdict"] == "busy" else ""
    figures = "".join(
        f"<figure>{svg(plot)}<figcaption>{html.escape(plot.caption)}</figcaption></figure>" for plot in plots
    )
    tables = "".join(map(_table, views))
    about = "".join(
        f"<tr><td>{html.escape(what)}</td><td style='text-align:left'>{html.escape(text)}</td></tr>"
        for what, text in facts(report)
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{_STYLE}</style></head><body><h1>{name}</h1><p class="noise{busy}">'
        f"{html.escape(noise_line(report.noise))}</p>{tables}{figures}"
        f"<h2>Machine and options</h2><table>{about}</table></body></html>\n"
    )


def _table(view: View) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in view.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in view.rows)
    return (
        f'<h2>{html.escape(view.title)}</h2><table class="w{view.words}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
