"""Starts a real Triton server on a model, waits until it is ready, and leaves nothing behind when it stops."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.protocol import MODELS
from serving.triton.command import triton_command
from serving.triton.drain import drain
from serving.triton.environment import environment
from serving.triton.exec_with_parent import __file__ as exec_with_parent
from serving.triton.hide_secret import hide
from serving.triton.install import find_tritonserver, make_backend_directory
from serving.triton.model_config import ModelOptions, write_repository
from serving.triton.ports import free_ports, reachable
from serving.triton.ready import ready
from serving.triton.repository import announced, check_live, live_number
from serving.triton.run_directory import remove_shared_memory, run_directory
from serving.triton.served_facts import served_facts
from serving.triton.server_log import has_lines, last_errors

Report = Callable[[str], None]

_logger = logging.getLogger(__name__)

_POLL_S = 0.05
_STOP_MARGIN_S = 5.0  # for a server that did not start, or did not drain
_FLUSH_S = 3.0  # for answers on their way to slow clients; Triton waits for idle connections too
_PORTS = ("http_port", "grpc_port", "metrics_port")
_ATTEMPTS = 3


class ServeError(RuntimeError):
    """The server did not start, or ended by itself; the message holds Triton's own reason."""


@dataclass(frozen=True)
class ServeOptions:
    """Where the server listens and how long it may take.

    Attributes:
        model: the model to serve, where `repository` is None.
        repository: a folder of published versions (serving/triton/repository.py) to serve and to follow.
        host: the address of all three ports. Keep 127.0.0.1 unless a firewall or a proxy protects the server.
        http_port, grpc_port, metrics_port: 0 takes a free port.
        start_timeout_s: longest time until both models are ready.
        drain_s: longest time after SIGTERM or SIGINT to answer the requests already accepted.
        log_file: Triton's log, in a folder that exists; None keeps the log in a temporary file.
        verbose: show Triton's whole log, not only its warnings and errors.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    repository: Path | None = None
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    start_timeout_s: float = 300.0
    drain_s: int = 30
    log_file: Path | None = None
    verbose: bool = False


class Server:
    """A running server. `serve` makes it. Every method may be called again after the server has stopped."""

    def __init__(
        self,
        options: ServeOptions,
        process: subprocess.Popen[bytes],
        log: Path,
        log_begin: int,
        secret: str,
        version: int | None = None,
    ) -> None:
        self.options = options
        self.process = process
        self.log = log
        self.log_begin = log_begin  # size of the log in bytes before this server
        self.secret = secret
        self.version = version  # the live one of a repository when the server started
        self.ready = False  # True from the first moment that both models are
        self.drained = False  # True once every accepted request is answered, and no more are accepted

    @property
    def grpc_url(self) -> str:
        return f"grpc://{reachable(self.options.host)}:{self.options.grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://{reachable(self.options.host)}:{self.options.http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{reachable(self.options.host)}:{self.options.metrics_port}/metrics"

    def stop(self, *, answered: bool = False) -> int:
        """Answer the accepted requests within `drain_s`, then end; no process is left. Returns Triton's exit status.

        `answered`: nobody asks any more, and everything is answered. Triton is then killed, since its own end and the
        ends of its models' interpreters take seconds.
        """
        self.drained = self.drained or answered
        if self.process.poll() is None and not answered:
            address = self.grpc_url.removeprefix("grpc://")
            self.drained = self.ready and drain(address, self.secret, self.options.drain_s)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_FLUSH_S if self.drained else _STOP_MARGIN_S)
        self.kill()
        return self.process.returncode

    def kill(self) -> None:
        """End Triton and its model processes at once."""
        # The model processes are in the server's process group. They outlive a server that was killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log_text(self) -> str:
        """What this server has logged so far."""
        return self.log.read_bytes()[self.log_begin :].decode(errors="replace")

    def reason(self) -> str:
        """The last errors of the server's log."""
        return last_errors(self.log_text())

    def announcement(self) -> str:
        """Where clients reach the server."""
        return f"ready: {self.grpc_url} {self.http_url} metrics {self.metrics_url}"

    def check(self) -> None:
        """Raises ServeError where Triton has ended by itself."""
        if self.process.poll() is not None:
            raise ServeError(
                f"[serve] expected Triton to run until stopped but it ended with {self.ending()}: {self.reason()}"
            )

    def unclean_ending(self) -> str | None:
        """How Triton ended where requests may be unanswered; None after a clean end."""
        return f"Triton ended with {self.ending()}" if self.process.returncode and not self.drained else None

    def ending(self) -> str:
        """How the process ended, in words."""
        status = self.process.returncode
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


@contextlib.contextmanager
def serve(options: ServeOptions, report: Report = lambda _: None) -> Iterator[Server]:
    """A server that is ready for requests. The end of the block stops the server and removes its files and memory.

    `report` receives a line of progress now and then. Raises ServeError with Triton's reason where the server does not
    start, PortError for a port that is taken, InstallError without a Triton, PublishError for a repository without a
    whole version, ValueError for options that cannot be served. The server ends when the thread ends that started it.
    """
    with run_directory() as run:
        server = Launcher(options, run).start(report)
        try:
            with follow(server):
                yield server
        finally:
            server.stop()


def follow(server: Server) -> contextlib.AbstractContextManager[None]:
    """Publishers of the repository find the server in the block."""
    if server.options.repository is None:
        return contextlib.nullcontext()
    return announced(server.options.repository, server.grpc_url, server.secret, server.version)


class Launcher:
    """Starts Triton on one model. A second start, after a fault, takes the ports and the secret of the first.

    Args:
        options: what is served; see `serve` for the errors.
        run: an empty folder for files of the server. Its name is the prefix of the server's shared memory.

    Attributes:
        options: with the ports, once a server has started.
        told: environment variables for the next start.
    """

    def __init__(self, options: ServeOptions, run: Path) -> None:
        _check(options)
        self.options = options
        self._run = run
        self._install = find_tritonserver()
        facts = served_facts(options.model)
        self._repository = options.repository or write_repository(run / "models", options.model, *facts)
        self._backends = make_backend_directory(self._install, run / "backends")
        self._log = options.log_file or run / "triton.log"
        self._secret = secrets.token_hex(16)
        self.told: dict[str, str] = {}  # more of the environment

    def start(self, report: Report = lambda _: None) -> Server:
        """A server that is ready. `report` may raise, to give up the start."""
        for attempt in range(1, _ATTEMPTS + 1):
            ports = free_ports(self.options.host, {name: getattr(self.options, name) for name in _PORTS})
            chosen = replace(self.options, **ports)  # type: ignore[arg-type]  # the names are fields of type int
            server = self._spawn(chosen)
            try:
                _wait_until_ready(server, report)
            except ServeError as error:
                server.stop()
                # Another program may take a free port before Triton binds it. On a busy machine Triton's Python backend
                # may give up on its own locks while it loads, and abort.
                lost_a_port = chosen != self.options and "already in use" in str(error)
                aborted = attempt == 1 and server.process.returncode == -signal.SIGABRT
                if not (lost_a_port or aborted) or attempt == _ATTEMPTS:
                    raise
                _logger.warning("%s; it is started once more", error)
                remove_shared_memory(self._run)
                if lost_a_port:
                    self._secret = secrets.token_hex(16)  # the other program may have been asked with the last one
            except BaseException:
                server.stop()
                raise
            else:
                self.options = chosen
                return server
        raise AssertionError("unreachable")

    def _spawn(self, options: ServeOptions) -> Server:
        version = None if options.repository is None else live_number(options.repository)
        command = triton_command(self._install, options, self._repository, self._backends, self._run.name, self._secret)
        log_begin = self._log.stat().st_size if self._log.exists() else 0
        values = environment(self._install, self._run.name) | self.told
        process = _spawn(command, values, self._log)
        return Server(options, process, self._log, log_begin, self._secret, version)


def _check(options: ServeOptions) -> None:
    if options.log_file is not None and not options.log_file.parent.is_dir():
        raise ServeError(
            f"[serve] expected log_file in a folder that exists but got '{options.log_file}'; make the folder first"
        )
    if options.repository is not None:
        check_live(options.repository)


def _spawn(command: list[str], values: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", exec_with_parent, str(os.getpid()), *command],
            env=values,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C signals every process of the terminal's group; the server must be stopped by us only.
            start_new_session=True,
        )


def _wait_until_ready(server: Server, report: Report) -> None:
    began, hidden = time.monotonic(), False
    while not ready(server.http_url, server.secret):
        hidden = hidden or _hide_secret(server)
        elapsed = time.monotonic() - began
        if server.process.poll() is not None:
            raise ServeError(f"[serve] expected Triton to start but it ended with {server.ending()}: {server.reason()}")
        if elapsed > server.options.start_timeout_s:
            raise ServeError(
                f"[serve] expected ready models within {server.options.start_timeout_s:g} s but they were not: "
                f"{server.reason()}; give more with --start-timeout"
            )
        report(f"loading {' and '.join(MODELS)}, {elapsed:.0f} s")
        time.sleep(_POLL_S)
    if not hidden:
        _hide_secret(server)
    server.ready = True


def _hide_secret(server: Server) -> bool:
    """Hide the secret once Triton has read its options, which is when Triton logs. True when the secret is hidden."""
    if server.process.poll() is not None or not has_lines(server.log_text()):
        return False
    try:
        hide(server.process.pid, server.secret)
    except OSError as error:
        _logger.warning("the secret of Triton's control interface stays in the output of `ps`: %s", error)
    return True
