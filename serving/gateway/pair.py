"""Triton and the gateway before it, as one thing that starts and stops."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from serving.gateway.settings import Settings
from serving.triton.exec_with_parent import __file__ as exec_with_parent
from serving.triton.ports import free_ports, reachable
from serving.triton.server import Report, ServeError, ServeOptions, Server, serve

_PRIVATE = {"host": "127.0.0.1", "http_port": 0, "grpc_port": 0, "metrics_port": 0}
_BACKLOG = 2048
_STOP_MARGIN_S = 5.0


class Pair:
    """A running Triton and the gateway before it. `serve_pair` makes it.

    Attributes:
        options: where the doors are; port 0 is replaced.
        triton: the server on private ports.
        process: the gateway's.
    """

    def __init__(self, options: ServeOptions, triton: Server, process: subprocess.Popen[str]) -> None:
        self.options = options
        self.triton = triton
        self.process = process

    @property
    def http_url(self) -> str:
        return f"http://{reachable(self.options.host)}:{self.options.http_port}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://{reachable(self.options.host)}:{self.options.grpc_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{reachable(self.options.host)}:{self.options.metrics_port}/metrics"

    @property
    def log(self) -> Path:
        return self.triton.log

    def announcement(self) -> str:
        """Where clients reach the server."""
        return f"ready: {self.grpc_url} {self.http_url} metrics {self.metrics_url}"

    def check(self) -> None:
        """Raises ServeError where one of the two has ended."""
        self.triton.check()
        if self.process.poll() is not None:
            raise ServeError(
                f"[serve] expected the gateway to run until stopped but it ended with status {self.process.returncode}"
            )

    def kill(self) -> None:
        """End both at once."""
        self.process.kill()
        self.triton.kill()

    def unclean_ending(self) -> str | None:
        """How the pair ended where requests may be unanswered; None after a clean end."""
        if self.process.returncode:
            return f"the gateway ended with status {self.process.returncode}"
        return self.triton.unclean_ending()


@contextlib.contextmanager
def serve_pair(options: ServeOptions, report: Report = lambda _: None) -> Iterator[Pair]:
    """Triton on private ports of loopback, and the gateway on the ports of `options`, ready for requests.

    The end of the block stops both, the gateway first, so that it can answer what it accepted. Raises what
    `serving.triton.server.serve` raises.
    """
    private = replace(options, **_PRIVATE)  # type: ignore[arg-type]  # the names are fields of these types
    with _doors(options) as (opened, sockets), serve(private, report) as triton:
        process = _spawn(opened, triton, sockets)
        try:
            _wait_until_ready(process)
            yield Pair(opened, triton, process)
        finally:
            for held in sockets.values():
                held.close()  # so that nobody waits in the backlog of a door that shuts
            _stop(process, options.drain_s)


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


def _spawn(options: ServeOptions, triton: Server, sockets: dict[str, socket.socket]) -> subprocess.Popen[str]:
    http_fd, metrics_fd = sockets["http_port"].fileno(), sockets["metrics_port"].fileno()
    settings = Settings(
        http_fd=http_fd,
        metrics_fd=metrics_fd,
        grpc_address=f"{options.host}:{options.grpc_port}",
        triton_grpc=triton.grpc_url.removeprefix("grpc://"),
        triton_metrics=triton.metrics_url,
        drain_s=options.drain_s,
        verbose=options.verbose,
    )
    command = [sys.executable, "-m", "serving.gateway"]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", exec_with_parent, str(os.getpid()), *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(http_fd, metrics_fd),
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(settings.to_json())
    return process


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        process.wait()
        raise ServeError(f"[serve] expected the gateway to start but it ended with status {process.returncode}")


def _stop(process: subprocess.Popen[str], drain_s: float) -> None:
    process.terminate()
    try:
        process.wait(drain_s + _STOP_MARGIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
