"""The gateway's process: `python -m serving.gateway`, with `Settings` on standard input.

Prints the line `ready` on standard output once every door is open. Ends on SIGTERM, after it has answered what it
accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

import uvicorn
import uvloop

from serving.gateway import grpc_door, json_log, live_messages, scrape
from serving.gateway.app import create_app
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.queue import FairQueue
from serving.gateway.settings import Settings
from serving.gateway.state import State
from serving.gateway.upstream import Upstream, UpstreamError
from serving.traces import make_tracer

_POLL_S = 0.01
_KEEP_ALIVE_S = 75  # longer than the minute that load balancers usually keep a connection
_PROBED_S = 10.0  # the longest time between two questions of a proxy
_TELL_S = 1.5  # deploy/haproxy/haproxy.cfg sends nothing more 0.7 s after /readyz turns to 503
_FIRST_IN_FLIGHT = 16  # until the model tells its largest batch


class _Server(uvicorn.Server):
    """A server that leaves the signals to the process."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


async def serve(settings: Settings) -> None:
    """Open every door, and serve until SIGTERM or SIGINT."""
    queue = FairQueue(_FIRST_IN_FLIGHT, settings.waiting_maps, settings.queue_timeout_s)
    metrics = GatewayMetrics(queue, settings.waiting_maps, settings.status_fd)
    state = State(settings, Upstream(settings.triton_grpc, queue, metrics, make_tracer("spade-gateway")))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.suppress(UpstreamError):  # a model that is being replaced is asked for with the first request
        await state.model()
    grpc_server = await grpc_door.start(state)
    apps = {settings.http_fd: create_app(state), settings.metrics_fd: scrape.create_app(state)}
    servers = {fd: _http_server(app, settings, tls=fd == settings.http_fd) for fd, app in apps.items()}
    serving = [asyncio.ensure_future(server.serve([socket.socket(fileno=fd)])) for fd, server in servers.items()]
    while not all(server.started for server in servers.values()):
        for task in serving:
            if task.done():
                task.result()  # raises why a door did not open
        await asyncio.sleep(_POLL_S)
    print("ready", flush=True)
    await stop.wait()
    await _tell_proxies(state)
    for server in servers.values():
        server.should_exit = True
    await asyncio.gather(*serving, grpc_server.stop(settings.drain_s))
    await state.upstream.close()
    state.tracer.close()


async def _tell_proxies(state: State) -> None:
    """Say that the server is not ready while the doors are still open, where somebody asks for it.

    gRPC cancels a call that comes in while its server shuts down, and no proxy sends it to another server.
    """
    state.stopping = True
    if time.monotonic() - state.probed < _PROBED_S:
        await asyncio.sleep(_TELL_S)


def _http_server(app: Any, settings: Settings, tls: bool) -> _Server:
    doors = settings.doors
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=live_messages.MOST_BYTES,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(doors.trusted_proxies),
        forwarded_allow_ips=list(doors.trusted_proxies),
        ssl_certfile=doors.tls_cert if tls else None,
        ssl_keyfile=doors.tls_key if tls else None,
        timeout_graceful_shutdown=int(settings.drain_s),
        timeout_keep_alive=_KEEP_ALIVE_S,
        backlog=settings.backlog,
    )
    return _Server(config)


def main() -> None:
    """Read the settings and serve."""
    settings = Settings.from_json(sys.stdin.read())
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # each connection is one
    json_log.set_up(settings.doors.json_log, settings.verbose)
    try:
        uvloop.run(serve(settings))
    except ModuleNotFoundError as error:  # uvicorn imports what speaks WebSocket when a door opens
        sys.exit(
            f"[gateway] expected the package {error.name} but it is not installed; run `pip install -e .` in the "
            "checkout of SPADE Serve"
        )
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)  # everything is closed, and the interpreter's own end takes up to a second


if __name__ == "__main__":
    main()
