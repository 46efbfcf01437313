"""Triton under supervision. Alone, it is `spade serve --direct`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from serving.supervisor.keeper import Keeper
from serving.supervisor.limits import DEFAULT_LIMITS, Limits
from serving.supervisor.processes import adopt_orphans
from serving.supervisor.status import StatusPage
from serving.supervisor.triton import TritonWard
from serving.triton.run_directory import run_directory
from serving.triton.server import Launcher, Report, ServeOptions, Server, follow


class SupervisedTriton:
    """A Triton that is replaced when it dies, hangs or leaks. `supervised` makes it.

    Attributes:
        options: where Triton listens; port 0 is replaced.
        status: what the supervisor knows.
    """

    def __init__(self, ward: TritonWard, keeper: Keeper, status: StatusPage) -> None:
        self._ward, self._keeper, self.status = ward, keeper, status
        self.options = self.server.options

    @property
    def server(self) -> Server:
        """The Triton of this moment. Addresses and secret stay the same when Triton is replaced."""
        assert self._ward.server is not None
        return self._ward.server

    @property
    def log(self) -> Path:
        """Triton's log, which goes on when Triton is replaced."""
        return self.server.log

    def announcement(self) -> str:
        """Where clients reach the server."""
        return self.server.announcement()

    def check(self) -> None:
        """Raises ServeError where Triton could not be started again."""
        self._keeper.check()

    def kill(self) -> None:
        """End Triton at once, where it takes long to stop."""
        self._keeper.kill()

    def all_answered(self) -> None:
        """Say that nobody asks any more, and that everything is answered: Triton need not be drained."""
        self._ward.answered = True

    def unclean_ending(self) -> str | None:
        """How Triton ended where requests may be unanswered; None after a clean end."""
        return self.server.unclean_ending()


@contextlib.contextmanager
def supervised(
    options: ServeOptions,
    report: Report = lambda _: None,
    limits: Limits = DEFAULT_LIMITS,
    status: StatusPage | None = None,
) -> Iterator[SupervisedTriton]:
    """A Triton that is ready, and kept so. The end of the block stops it. `status` is the page of somebody who shows
    it; without one, Triton shows the restarts among its own metrics.

    Raises what `serving.triton.server.serve` raises. This process becomes the parent of orphans.
    """
    adopt_orphans()
    with run_directory() as run, contextlib.closing(StatusPage()) as own:
        shown = own if status is None else None
        status = status or own
        followed = options.repository is not None
        ward = TritonWard(Launcher(options, run), run, limits, replaced=followed, shown=shown)
        keeper = Keeper(ward, status, limits)
        try:
            keeper.start(report)
            running = SupervisedTriton(ward, keeper, status)
            with follow(running.server):
                yield running
        finally:
            keeper.stop()
