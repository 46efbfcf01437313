"""A process that loads something once and then answers calls. The process sleeps between calls."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class LoadError(RuntimeError):
    """The process could not load what it was asked for; the message is the reason."""


class LoadedProcess:
    """Starts the process and waits until the process is loaded. Call `close` at the end.

    Args:
        name: name of the process in messages.
        load: a function of a module. The process calls `load` with `arguments`; the result answers the calls.

    Raises LoadError with the reason where `load` or a call raises an Exception, and RuntimeError where the process
    ends, now or in a call. The process has then printed the reason.
    """

    def __init__(self, name: str, load: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a spawned process loads only the libraries it needs
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process ends the connection
        try:
            self._receive()
        except RuntimeError:
            self.close()
            raise

    def call(self, *arguments: Any) -> Any:
        self._connection.send(arguments)
        return self._receive()

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            answer, reason = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"[benchmark] expected {self.name} to run but its process ended; see above") from None
        if reason:
            raise LoadError(reason)
        return answer


def _serve(connection: Connection, load: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    try:
        answer = load(*arguments)
    except Exception as error:  # noqa: BLE001 - the parent says the reason, whatever it is
        connection.send((None, _reason(error)))
        return
    connection.send((None, ""))
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        try:
            result = answer(*call)
        except Exception as error:  # noqa: BLE001 - as above
            connection.send((None, _reason(error)))
        else:
            connection.send((result, ""))


def _reason(error: Exception) -> str:
    """The error in one line, never empty."""
    return " ".join(str(error).split()) or type(error).__name__
