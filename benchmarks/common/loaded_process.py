"""A process that loads something once and then answers calls. The process sleeps between calls."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class LoadedProcess:
    """Starts the process and waits until the process is loaded. Call `close` at the end.

    Args:
        name: name of the process in messages.
        load: a function of a module. The process calls `load` with `arguments`; the result answers the calls.

    Raises RuntimeError where the process ends, now or in a call. The process has printed the reason.
    """

    def __init__(self, name: str, load: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a spawned process loads only the libraries it needs
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process ends the connection
        self._receive()

    def call(self, *arguments: Any) -> Any:
        self._connection.send(arguments)
        return self._receive()

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise RuntimeError(f"[benchmark] expected {self.name} to run but its process ended; see above") from None


def _serve(connection: Connection, load: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    answer = load(*arguments)
    connection.send(None)
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        connection.send(answer(*call))
