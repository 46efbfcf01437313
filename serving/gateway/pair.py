"""Triton and the gateway before it, as one thing that starts and stops."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from serving.gateway.doors import OPEN, Doors
from serving.gateway.ward import GatewayWard, prepared
from serving.supervisor.keeper import Keeper
from serving.supervisor.limits import DEFAULT_LIMITS, Limits
from serving.supervisor.status import StatusPage
from serving.supervisor.supervised import SupervisedTriton, supervised
from serving.triton.ports import free_ports, reachable
from serving.triton.server import Report, ServeOptions, Server

_PRIVATE = {"host": "127.0.0.1", "http_port": 0, "grpc_port": 0, "metrics_port": 0}
_BACKLOG = 2048


class Pair:
    """A running Triton and the gateway before it, both under supervision. `serve_pair` makes it.

    Attributes:
        options: where the doors are; port 0 is replaced.
        doors: who may come in, and how.
        gateway: the gateway's process, as a ward.
    """

    def __init__(
        self, options: ServeOptions, doors: Doors, triton: SupervisedTriton, gateway: GatewayWard, keeper: Keeper
    ) -> None:
        self.options = options
        self.doors = doors
        self.gateway = gateway
        self._triton, self._keeper = triton, keeper

    @property
    def triton(self) -> Server:
        """The server on private ports, which is another one after a fault."""
        return self._triton.server

    @property
    def status(self) -> StatusPage:
        """What the supervisor knows."""
        return self._triton.status

    @property
    def http_url(self) -> str:
        scheme = "https" if self.doors.tls else "http"
        return f"{scheme}://{reachable(self.options.host)}:{self.options.http_port}"

    @property
    def grpc_url(self) -> str:
        scheme = "grpcs" if self.doors.tls else "grpc"
        return f"{scheme}://{reachable(self.options.host)}:{self.options.grpc_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{reachable(self.options.host)}:{self.options.metrics_port}/metrics"

    @property
    def log(self) -> Path:
        return self._triton.log

    def announcement(self) -> str:
        """Where clients reach the server."""
        return f"ready: {self.grpc_url} {self.http_url} metrics {self.metrics_url}"

    def check(self) -> None:
        """Raises ServeError where one of the two could not be started again."""
        self._triton.check()
        self._keeper.check()

    def kill(self) -> None:
        """End both at once, where they take long to stop."""
        self._keeper.kill()
        self._triton.kill()

    def unclean_ending(self) -> str | None:
        """How the pair ended where requests may be unanswered; None after a clean end."""
        return self.gateway.unclean_ending() or self._triton.unclean_ending()


@contextlib.contextmanager
def serve_pair(
    options: ServeOptions, report: Report = lambda _: None, limits: Limits = DEFAULT_LIMITS, doors: Doors = OPEN
) -> Iterator[Pair]:
    """Triton on private ports of loopback, and the gateway on the ports of `options`, ready for requests.

    The end of the block stops both, the gateway first, so that it can answer what it accepted. Raises what
    `serving.triton.server.serve` raises, and DoorsError.
    """
    doors.check(options.host)
    # The gateway lets two batches through to Triton, and bounds what waits by itself.
    model = replace(options.model, queue_size=max(options.model.queue_size, 2 * options.model.max_batch))
    private = replace(options, model=model, **_PRIVATE)  # type: ignore[arg-type]  # the names are fields of these types
    with (
        _doors(options) as (opened, sockets),
        contextlib.closing(StatusPage()) as status,
        prepared(sockets, status) as process,
        supervised(private, report, limits, status) as triton,
    ):
        gateway = GatewayWard(opened, doors, triton, sockets, process)
        keeper = Keeper(gateway, triton.status, limits, decides_ready=False)
        try:
            keeper.start(report)
            yield Pair(opened, doors, triton, gateway, keeper)
        finally:
            keeper.stop()
            if gateway.unclean_ending() is None:
                triton.all_answered()  # the gateway was all who asked


@contextlib.contextmanager
def _doors(options: ServeOptions) -> Iterator[tuple[ServeOptions, dict[str, socket.socket]]]:
    """The doors' sockets, and `options` with their ports. Raises PortError before anything is loaded."""
    names = ("http_port", "grpc_port", "metrics_port")
    ports = free_ports(options.host, {name: getattr(options, name) for name in names})
    with contextlib.ExitStack() as stack:
        sockets = {}
        for name in names:
            held = stack.enter_context(_bound(options.host, ports[name], shared=name == "grpc_port"))
            sockets[name] = held
        yield replace(options, **ports), sockets  # type: ignore[arg-type]


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    """A socket on a port. `shared` only holds the port, for gRPC, which cannot take a socket over."""
    family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR, 1)
    held.bind((host, port))
    if not shared:
        held.listen(_BACKLOG)
    return held
