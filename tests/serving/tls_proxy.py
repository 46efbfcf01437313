"""A TLS proxy for the tests, as people put one in front of a server: TLS on one side, plain TCP on the other."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme


def make_context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for `host`. gRPC needs HTTP/2 to be agreed on in the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(host).configure_cert(context)
    return context


@contextlib.contextmanager
def tls_proxy(upstream: int, context: ssl.SSLContext) -> Iterator[int]:
    """Forward connections to port `upstream` of this machine. Gives the proxy's port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, upstream, context), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            thread.join()


def write_authority(authority: trustme.CA, path: Path) -> Path:
    authority.cert_pem.write_to_path(str(path))
    return path


def _accept(listener: socket.socket, upstream: int, context: ssl.SSLContext) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(plain, upstream, context), daemon=True).start()


def _serve(plain: socket.socket, upstream: int, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", upstream)) as server:
        plain.settimeout(30)
        with plain, context.wrap_socket(plain, server_side=True) as client:
            client.settimeout(None)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy what one side sends to the other, until either side hangs up."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
