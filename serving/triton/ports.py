"""The ports that a server listens on: free ones are chosen, and taken ones are errors."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping


class PortError(RuntimeError):
    """An address or a port that cannot be listened on; the message says what to change."""


def free_ports(host: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """`wanted` (name -> port) with every port 0 replaced by a free one of `host`.

    Raises PortError where a port is taken, or `host` is no address of this machine.
    """
    chosen: dict[str, int] = {}
    # All listeners stay open until the end, so that no free port is chosen twice.
    with contextlib.ExitStack() as held:
        for name, port in wanted.items():
            listener = held.enter_context(socket.socket(_family(host)))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                raise _explained(error, host, name, port) from error
            chosen[name] = listener.getsockname()[1]
    return chosen


def reachable(host: str) -> str:
    """The host part of a URL that reaches a server which listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:
        raise PortError(
            f"[serve] expected an address of this machine but could not look up {host!r}: {error}; "
            "give --host 127.0.0.1, or 0.0.0.0 for every address"
        ) from error


def _explained(error: OSError, host: str, name: str, port: int) -> PortError:
    option = f"--{name.replace('_', '-')}"
    if error.errno == errno.EADDRNOTAVAIL:
        return PortError(
            f"[serve] expected an address of this machine but got {host}; "
            "give --host 127.0.0.1, or 0.0.0.0 for every address"
        )
    if error.errno == errno.EACCES:
        return PortError(
            f"[serve] expected {name} {port} to be open to this user but got: {error.strerror}; "
            f"choose a port of 1024 or more with {option}"
        )
    return PortError(
        f"[serve] expected {name} {port} to be free on {host} but got: {error.strerror}; "
        f"stop its owner, or choose another with {option} (0 takes a free one)"
    )
