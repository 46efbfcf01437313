"""Live progress of a benchmark on standard error: the table so far and a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.report.views import View


class Screen:
    """A context manager. `step` says what runs next, `show` replaces the table, `note` prints a line that stays."""

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left:"), TimeRemainingColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task("", total=total)
        self._views: Sequence[View] = ()
        self._live = Live(console=self._console, refresh_per_second=2, transient=True, get_renderable=self._render)
        self._begun = False
        self._last = ""

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def step(self, what: str) -> None:
        """A step begins; the step before has ended."""
        if self._begun:
            self._progress.advance(self._task)
        self._begun = True
        self._progress.update(self._task, description=what)
        if not self._console.is_terminal and what != self._last:
            self.note(what)
        self._last = what

    def expect(self, total: int) -> None:
        """Change the number of steps."""
        self._progress.update(self._task, total=total)

    def show(self, views: Sequence[View]) -> None:
        """The tables so far."""
        self._views = views

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def _render(self) -> Group:
        return Group(*(view.rich() for view in self._views), self._progress)
