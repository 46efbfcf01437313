"""Asks the gateway for its health over and over, without ever waiting for it."""

from __future__ import annotations

import socket
import time

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_PAUSE_S = 1.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Probe:
    """One connection after another to a door. Any byte that comes back shows that the event loop runs.

    Args:
        host, port: of the HTTP door.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = _ANY.get(host, host), port
        self._socket: socket.socket | None = None
        self._sent = False
        self._began = 0.0
        self._ended = 0.0

    def close(self) -> None:
        """Forget the request on its way."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._ended = time.monotonic()

    def silent_s(self) -> float:
        """Go on with the request. Returns how long the request on its way has waited, seconds; 0 without one."""
        if self._socket is None:
            if time.monotonic() - self._ended < _PAUSE_S:
                return 0.0
            self._open()
        try:
            self._step()
        except BlockingIOError:
            return time.monotonic() - self._began
        except OSError:  # the connection was closed, or refused since the gateway ends
            self.close()
        return 0.0

    def _open(self) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET)
        self._socket.setblocking(False)
        self._socket.connect_ex(self._address)
        self._began, self._sent = time.monotonic(), False

    def _step(self) -> None:
        assert self._socket is not None
        if not self._sent:
            self._socket.send(_REQUEST)
            self._sent = True
        self._socket.recv(1)
        self.close()
