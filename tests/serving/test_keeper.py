"""A supervisor that cannot go on says so, and one whose Triton dies while it answers goes on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest
from served import wait_until

from serving.supervisor.keeper import Keeper
from serving.supervisor.limits import Limits
from serving.supervisor.status import StatusPage
from serving.triton.ask import ask
from serving.triton.server import ServeError


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnv_inference", b"\0\0\6\4\0\r\n", b""]
)
def test_an_answer_that_is_cut_off_is_an_error_of_the_connection(answer: bytes) -> None:
    """http.client's own errors are no OSError, and that is what is expected of a Triton that is being replaced."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(OSError, match=r"cut off|reset|closed"):
            ask(f"http://127.0.0.1:{listener.getsockname()[1]}/metrics", 10)
        server.join()


class Unwatchable:
    """A ward that starts, and cannot be looked at."""

    name = "unwatchable"

    def __init__(self) -> None:
        self.stopped = False

    def start(self, report: Callable[[str], None]) -> None:
        report("started")

    def look(self) -> None:
        raise RuntimeError("no eyes")

    def answers(self) -> bool:
        return True

    def kill(self) -> None:
        self.stopped = True

    def stop(self) -> None:
        self.stopped = True


def test_what_nobody_can_watch_ends_with_the_reason() -> None:
    ward = Unwatchable()
    with contextlib.closing(StatusPage()) as status:
        keeper = Keeper(ward, status, Limits())
        keeper.start(lambda _: None)
        try:
            wait_until(lambda: ward.stopped, "the end")
            with pytest.raises(ServeError, match="gave up on unwatchable: no eyes"):
                keeper.check()
        finally:
            keeper.stop()
