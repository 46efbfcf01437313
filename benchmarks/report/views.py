"""Tables of a report, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from benchmarks.report.report import Missing


@dataclass(frozen=True)
class View:
    """A table of text. The first `words` columns hold words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def rich(self) -> Table:
        """The table for a terminal."""
        table = Table(title=escape(self.title))
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number < self.words else "right")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table

    def markdown(self) -> str:
        """The table in Markdown, under its title in bold."""
        marks = ["---" if number < self.words else "---:" for number in range(len(self.columns))]
        lines = [self.columns, marks, *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n"


def missing_view(missing: Sequence[Missing]) -> View:
    """What could not be measured."""
    rows = [(one.name, one.case, one.reason) for one in missing]
    return View("not measured", ("", "case", "why"), rows, words=3)


def number(value: float | None, form: str = ".3g", empty: str = "") -> str:
    """A number as text; `empty` for a value that was not measured."""
    return empty if value is None or value != value else format(value, form)


def ms(seconds: float | None) -> str:
    """Seconds as milliseconds with three digits that count."""
    if seconds is None or seconds != seconds:
        return ""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
