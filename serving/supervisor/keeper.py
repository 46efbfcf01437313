"""Keeps one ward running: on a fault it kills, counts, and starts anew, until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from serving.supervisor.limits import Limits
from serving.supervisor.status import StatusPage
from serving.supervisor.ward import Fault, Ward
from serving.triton.ports import PortError
from serving.triton.server import ServeError

_logger = logging.getLogger("spade.supervisor")

_LONGEST_PAUSE_S = 30.0


class _StoppingError(BaseException):
    """The keeper was told to stop while its ward started."""


class Keeper:
    """Starts a ward, and keeps it running until `stop`.

    Args:
        status: gets the restarts and, where `decides_ready`, whether the ward answers.
        limits: how often a start may fail.
    """

    def __init__(self, ward: Ward, status: StatusPage, limits: Limits, *, decides_ready: bool = True) -> None:
        self._ward, self._status, self._limits = ward, status, limits
        self._decides_ready = decides_ready
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._error: BaseException | None = None
        # The kernel ends the ward's processes with the thread that started them: one thread does all.
        self._thread = threading.Thread(target=self._live, name=f"keeper of {ward.name}")
        self._report: Callable[[str], None] = lambda _: None

    def start(self, report: Callable[[str], None]) -> None:
        """Start the ward, and return once it is ready. Raises what the ward raises; call `stop` then too."""
        self._report = report
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """Raises ServeError where the ward could not be started again."""
        if self._error is not None:
            raise ServeError(f"[serve] gave up on {self._ward.name}: {self._error}")

    def stop(self) -> None:
        """Let the ward answer what it accepted, and end it."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def kill(self) -> None:
        """End a ward that takes long to stop."""
        self._ward.kill()

    def _live(self) -> None:
        try:
            self._ward.start(self._unless_stopping(self._report))
            self._set_ready()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
            return
        finally:
            self._started.set()
        try:
            self._keep()
        except Exception as error:  # nobody would watch the ward any more, so it ends, which is seen
            _logger.exception("%s is no longer watched", self._ward.name)
            self._error = error
        self._ward.stop()

    def _keep(self) -> None:
        started, failures = time.monotonic(), 0
        while not self._stopping.is_set() and self._error is None:
            fault = self._ward.look()
            self._set_ready(fault)
            if fault is not None:
                failures = failures + 1 if time.monotonic() - started < self._limits.settled_s else 0
                self._recover(fault, failures)
                started = time.monotonic()

    def _set_ready(self, fault: Fault | None = None) -> None:
        if self._decides_ready:
            answers = fault is None and self._ward.answers()
            reason = "" if answers else f"{self._ward.name}: {fault.text if fault else 'no answer'}"
            self._status.set_ready(answers, reason)

    def _recover(self, fault: Fault, failures: int) -> None:
        """Start the ward again, with longer and longer pauses where that fails."""
        name, began = self._ward.name, time.monotonic()
        _logger.warning("%s is replaced (%s): %s", name, fault.reason, fault.text)
        self._ward.kill()
        self._status.count(name, fault.reason)
        last: Exception = ServeError(fault.text)
        while failures < self._limits.attempts:
            if failures and self._stopping.wait(min(2.0 ** (failures - 1), _LONGEST_PAUSE_S)):
                return
            try:
                self._ward.start(self._unless_stopping(lambda _: None))
            except _StoppingError:
                return
            except (ServeError, PortError, OSError, ValueError) as error:
                _logger.warning("%s did not start again: %s", name, error)
                self._ward.kill()
                last, failures = error, failures + 1
                continue
            self._set_ready()
            _logger.warning("%s runs again after %.1f s", name, time.monotonic() - began)
            return
        self._error = last

    def _unless_stopping(self, report: Callable[[str], None]) -> Callable[[str], None]:
        def reported(text: str) -> None:
            if self._stopping.is_set():
                raise _StoppingError
            report(text)

        return reported
