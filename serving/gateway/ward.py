"""The gateway's process, as a ward of the supervisor: dead, stopped or silent is noticed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from serving.gateway.doors import Doors
from serving.gateway.probe import Probe
from serving.gateway.settings import Settings
from serving.supervisor.processes import demand_s, read_process, reap
from serving.supervisor.status import StatusPage
from serving.supervisor.supervised import SupervisedTriton
from serving.supervisor.ward import Fault
from serving.triton.exec_with_parent import __file__ as exec_with_parent
from serving.triton.server import ServeError, ServeOptions

Process = subprocess.Popen[str]
Sockets = Mapping[str, socket.socket]

_LOOK_S = 0.1
_STOPPED_S = 0.3
_SILENT_S = 10.0  # without an answer to a request for its health, while the process does nothing
_SILENT_BUSY_S = 60.0
_IDLE = 0.1  # demand for processors, in seconds a second, below which the process does nothing
_STOP_MARGIN_S = 5.0


class GatewayWard:
    """One gateway after another, each on the same sockets, so that a client waits instead of being refused.

    Args:
        options: where the doors are.
        doors: who may come in, and how.
        triton: behind the gateway.
        sockets: of the doors, by the names of the ports.
        prepared: the first gateway, which waits for its settings.
    """

    name = "gateway"

    def __init__(
        self,
        options: ServeOptions,
        doors: Doors,
        triton: SupervisedTriton,
        sockets: Sockets,
        prepared: Process | None = None,
    ) -> None:
        self._options, self._doors, self._triton, self._sockets = options, doors, triton, sockets
        self._prepared = prepared
        self._process: Process | None = None
        self._probe = Probe(*sockets["http_port"].getsockname()[:2])
        self._stopped_since: float | None = None
        self._demand_s = 0.0  # of the process, when its last answer came

    @property
    def pid(self) -> int:
        """Of the gateway that runs now, or ran last."""
        assert self._process is not None
        return self._process.pid

    def start(self, report: Callable[[str], None]) -> None:
        """See `Ward.start`. Raises ServeError."""
        self._process = process = self._prepared or spawn(self._sockets, self._triton.status)
        self._prepared = None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:  # a process that has ended is noticed below
            process.stdin.write(self._settings().to_json())
        self._probe.close()
        self._stopped_since = None
        assert process.stdout is not None
        limit_s = self._options.start_timeout_s
        end = time.monotonic() + limit_s
        while not select.select([process.stdout], [], [], _LOOK_S)[0]:
            report("opening the doors")
            if time.monotonic() > end:
                self.kill()
                raise ServeError(
                    f"[serve] expected open doors within {limit_s:g} s but the gateway still starts; give more with "
                    "--start-timeout"
                )
        if process.stdout.readline().strip() == "ready":
            return
        process.wait()
        self.kill()
        raise ServeError(
            f"[serve] expected the gateway to start but it ended with status {process.returncode}; its reason is above"
        )

    def look(self) -> Fault | None:
        """See `Ward.look`."""
        assert self._process is not None
        try:
            self._process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            return self._stopped() or self._silent()
        return Fault("dead", f"the gateway ended with status {self._process.returncode}")

    def answers(self) -> bool:
        """See `Ward.answers`."""
        return self._process is not None and self._process.returncode is None

    def kill(self) -> None:
        """See `Ward.kill`."""
        self._probe.close()
        if self._process is not None:
            end(self._process)

    def stop(self) -> None:
        """See `Ward.stop`."""
        for held in self._sockets.values():
            held.close()  # so that nobody waits in the backlog of a door that shuts
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._options.drain_s + _STOP_MARGIN_S)
        self.kill()

    def unclean_ending(self) -> str | None:
        """How the gateway ended where requests may be unanswered; None after a clean end."""
        status = None if self._process is None else self._process.returncode
        return f"the gateway ended with status {status}" if status else None

    def _stopped(self) -> Fault | None:
        now = read_process(self.pid)
        if now is None or not now.stopped:
            self._stopped_since = None
            return None
        self._stopped_since = self._stopped_since or time.monotonic()
        if time.monotonic() - self._stopped_since < _STOPPED_S:
            return None
        return Fault("hung", f"the gateway's process {self.pid} is stopped (SIGSTOP)")

    def _silent(self) -> Fault | None:
        silent = self._probe.silent_s()
        if silent == 0:
            self._demand_s = demand_s(self.pid)
            return None
        idle = demand_s(self.pid) - self._demand_s < _IDLE * silent
        if silent < (_SILENT_S if idle else _SILENT_BUSY_S):
            return None
        return Fault("hung", f"no answer of the gateway for {silent:.1f} s")

    def _settings(self) -> Settings:
        triton, options = self._triton.server, self._options
        return Settings(
            http_fd=self._sockets["http_port"].fileno(),
            metrics_fd=self._sockets["metrics_port"].fileno(),
            status_fd=self._triton.status.descriptor,
            grpc_address=f"{options.host}:{options.grpc_port}",
            triton_grpc=triton.grpc_url.removeprefix("grpc://"),
            triton_metrics=triton.metrics_url,
            admin_secret=triton.secret,
            drain_s=options.drain_s,
            doors=self._doors,
            waiting_maps=options.model.queue_size,
            queue_timeout_s=options.model.queue_timeout_s,
            verbose=options.verbose,
        )


def spawn(sockets: Sockets, status: StatusPage) -> Process:
    """A gateway that imports its packages, and then waits for its settings on standard input."""
    gateway = [sys.executable, "-m", "serving.gateway"]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", exec_with_parent, str(os.getpid()), *gateway],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(sockets["http_port"].fileno(), sockets["metrics_port"].fileno(), status.descriptor),
        start_new_session=True,
    )


@contextlib.contextmanager
def prepared(sockets: Sockets, status: StatusPage) -> Iterator[Process]:
    """The first gateway: its imports and Triton's start take place at the same time. No process is left."""
    process = spawn(sockets, status)
    try:
        yield process
    finally:
        end(process)


def end(process: Process) -> None:
    """End a gateway at once, with whatever is in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reap(process.pid)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
