"""Starts a real Triton server on a model, waits until it is ready, and leaves nothing behind when it stops."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from serving.progress import Progress
from serving.triton.exec_with_parent import __file__ as exec_with_parent
from serving.triton.hide_secret import hide
from serving.triton.install import InstallError, TritonInstall, find_tritonserver, make_backend_directory
from serving.triton.model_config import ModelOptions, write_repository
from serving.triton.protocol import MODELS
from serving.triton.repository import ADMIN_HEADER, PublishError, announced, check_live, live_number
from spade_core.config import GeneratorConfig, preset

Report = Callable[[str], None]

_logger = logging.getLogger(__name__)

_RUN_PREFIX = "spade-serve-"
_SHARED_MEMORY = Path("/dev/shm")  # Triton's regions are there, whatever TMPDIR says
# Nobody has a use for these over the network, and several were the way in of published attacks.
_RESTRICTED = "shared-memory,model-config,model-repository,statistics,trace,logging"
_POLL_S = 0.1
_STOP_MARGIN_S = 15.0  # Triton unloads the models after the last request is answered
_PORT_ATTEMPTS = 3
_READY_PATHS = ("health/ready", *(f"models/{model}/ready" for model in MODELS))
_NOISE = ("CudaDriverHelper",)  # Triton's error line on every machine without a GPU
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before our own server


class ServeError(RuntimeError):
    """The server did not start; the message holds Triton's own reason."""


@dataclass(frozen=True)
class ServeOptions:
    """Where the server listens and how long it may take.

    Attributes:
        model: what is served, unless there is a repository.
        repository: a folder of published versions (serving/triton/repository.py) to serve instead, and to follow.
        host: address of all three ports. Keep 127.0.0.1 unless a firewall or a proxy stands before it.
        http_port, grpc_port, metrics_port: 0 picks a free one.
        start_timeout_s: longest time until both models are ready.
        drain_s: after SIGTERM or SIGINT, longest time to answer the requests already accepted.
        log_file: Triton's log; None keeps it in a temporary file that goes with the server.
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
    """A running server. Made by `serve`; every method may be called again after the server has stopped."""

    def __init__(
        self, options: ServeOptions, process: subprocess.Popen[bytes], log: Path, log_begin: int, secret: str
    ) -> None:
        self.options = options
        self.process = process
        self.log = log
        self.log_begin = log_begin  # bytes that were in the log before this server
        self.secret = secret

    @property
    def grpc_url(self) -> str:
        return f"grpc://{_reachable(self.options.host)}:{self.options.grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://{_reachable(self.options.host)}:{self.options.http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{_reachable(self.options.host)}:{self.options.metrics_port}/metrics"

    def terminate(self) -> None:
        """Asks the server to answer what it accepted and to stop. Does not wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> int:
        """Terminates, waits `drain_s`, then kills; no process is left. Returns Triton's exit status."""
        self.terminate()
        try:
            self.process.wait(self.options.drain_s + _STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # The model processes are in the server's group, and end with it unless it was killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.returncode


@contextlib.contextmanager
def serve(options: ServeOptions, report: Report = lambda _: None) -> Iterator[Server]:
    """A server that is ready for requests; stopped, with its files and shared memory removed, at the end of the block.

    `report` receives a line of progress now and then. Raises ServeError with Triton's reason when it does not start,
    InstallError when there is no Triton, PublishError for a repository without a whole version, ValueError when the
    options cannot be served. The server ends with the thread that started it, whatever ends that.
    """
    started = None
    if options.repository is not None:
        check_live(options.repository)
        started = live_number(options.repository)
    config = served_config(options.model)
    install = find_tritonserver()
    with _run_directory() as run:
        server = _start(install, options, config, run, report)
        try:
            with _follow(server, started):
                yield server
        finally:
            server.stop()


def _follow(server: Server, started: int | None) -> contextlib.AbstractContextManager[None]:
    """A repository's publisher finds the server while this lasts."""
    if server.options.repository is None:
        return contextlib.nullcontext()
    return announced(server.options.repository, server.grpc_url, server.secret, started)


def run(options: ServeOptions) -> int:
    """`spade serve`: serves until SIGTERM or SIGINT and returns the exit status of the command. Main thread only.

    0: stopped by a signal, everything accepted was answered. 1: it did not start, Triton ended by itself, or requests
    were cut off after `drain_s`; the reason goes to standard error. A second signal kills at once.
    """
    with Progress() as progress:
        stop = _StopOnSignal()
        try:
            with stop.installed(), serve(options, progress.report) as server:
                stop.server = server
                progress.done(f"ready: {server.grpc_url} {server.http_url} metrics {server.metrics_url}")
                _watch(server, progress.line)
        except _Stopped:
            return _stopped(stop.server, progress)
        except (ServeError, InstallError, PublishError, ValueError) as error:
            progress.line(str(error))
            return 1
    return 1


def served_config(options: ModelOptions) -> GeneratorConfig:
    """The configuration of the weights that `options` name. Raises ValueError where they cannot be read."""
    if options.weights is None:
        return preset(options.preset)
    from spade_core.files.checkpoints import info

    return info(options.weights).config


def _start(install: TritonInstall, options: ServeOptions, config: GeneratorConfig, run: Path, report: Report) -> Server:
    repository = options.repository or write_repository(run / "models", options.model, config)
    backends = make_backend_directory(install, run / "backends")
    log = options.log_file or run / "triton.log"
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        chosen = _choose_ports(options)
        secret = secrets.token_hex(16)
        command = _command(install, chosen, repository, backends, run.name, secret)
        log_begin = log.stat().st_size if log.exists() else 0
        server = Server(chosen, _spawn(command, install, log), log, log_begin, secret)
        try:
            _wait_until_ready(server, report)
        except BaseException as error:
            server.stop()
            # Between choosing a free port and Triton's binding it, another program may take it.
            lost_a_port = chosen != options and isinstance(error, ServeError) and "already in use" in str(error)
            if not lost_a_port or attempt == _PORT_ATTEMPTS:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def _command(
    install: TritonInstall, options: ServeOptions, repository: Path, backends: Path, name: str, secret: str
) -> list[str]:
    gpu = Path("/dev/nvidiactl").exists()
    return [
        str(install.binary),
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in MODELS),
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={name}",
        f"--http-address={options.host}",
        f"--http-port={options.http_port}",
        f"--grpc-address={options.host}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-address={options.host}",
        f"--metrics-port={options.metrics_port}",
        f"--http-restricted-api={_RESTRICTED}:{ADMIN_HEADER}={secret}",
        f"--grpc-restricted-protocol={_RESTRICTED}:{ADMIN_HEADER}={secret}",
        f"--exit-timeout-secs={options.drain_s}",
        f"--allow-gpu-metrics={str(gpu).lower()}",
        *([] if gpu else ["--pinned-memory-pool-byte-size=0"]),
    ]


def _spawn(command: list[str], install: TritonInstall, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", exec_with_parent, str(os.getpid()), *command],
            env=_environment(install),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the whole group of a terminal; the server must hear of it from us only.
            start_new_session=True,
        )


# Where glibc's malloc gets to by itself once it has freed 32 MB at once: else it gives back the pages of every request,
# and takes them anew for the next.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}


def _environment(install: TritonInstall) -> dict[str, str]:
    """This environment, changed so that the Python inside Triton is this very one, virtual environment included."""
    environment = dict(os.environ)
    # The embedded interpreter looks for `python3` on PATH and takes the pyvenv.cfg beside it.
    _prepend(environment, "PATH", [str(Path(sys.executable).parent)])
    _prepend(environment, "LD_LIBRARY_PATH", [str(folder) for folder in install.libraries])
    return _MALLOC | environment


def _prepend(environment: dict[str, str], name: str, entries: list[str]) -> None:
    environment[name] = os.pathsep.join([*entries, *filter(None, [environment.get(name)])])


def _choose_ports(options: ServeOptions) -> ServeOptions:
    """`options` with every port 0 replaced by a free one. Raises ServeError where a port asked for is taken."""
    names = ("http_port", "grpc_port", "metrics_port")
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name in names:
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = getattr(options, name)
            try:
                listener.bind((options.host, port))
            except OSError as error:
                raise ServeError(
                    f"[serve] expected {name} {port} to be free on {options.host} but got: {error.strerror}; "
                    f"stop its owner, or choose another with --{name.replace('_', '-')} (0 takes a free one)"
                ) from error
            chosen[name] = listener.getsockname()[1]
    return replace(options, **chosen)  # type: ignore[arg-type]


def _wait_until_ready(server: Server, report: Report) -> None:
    began, hidden = time.monotonic(), False
    while not all(_answers(f"{server.http_url}/v2/{path}") for path in _READY_PATHS):
        hidden = hidden or _hide_secret(server)
        elapsed = time.monotonic() - began
        if server.process.poll() is not None:
            raise ServeError(f"[serve] expected Triton to start but it ended with {_ending(server)}: {_reason(server)}")
        if elapsed > server.options.start_timeout_s:
            raise ServeError(
                f"[serve] expected ready models within {server.options.start_timeout_s:g} s but they were not: "
                f"{_reason(server)}; give more with --start-timeout"
            )
        report(f"loading {' and '.join(MODELS)}, {elapsed:.0f} s")
        time.sleep(_POLL_S)
    if not hidden:
        _hide_secret(server)


def _hide_secret(server: Server) -> bool:
    """Once Triton logs, it has read its options: nobody need see the secret among them. True when that is done."""
    if server.process.poll() is not None or not re.search(r"^[IWE]\d{4} ", _log_text(server), re.MULTILINE):
        return False
    try:
        hide(server.process.pid, server.secret)
    except OSError as error:
        _logger.warning("the secret of Triton's control interface stays in the output of `ps`: %s", error)
    return True


def _log_text(server: Server) -> str:
    return server.log.read_bytes()[server.log_begin :].decode(errors="replace")


def _answers(url: str) -> bool:
    try:
        with _OPENER.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _watch(server: Server, show: Report) -> None:
    """Shows what Triton logs until it ends by itself, which is an error."""
    with server.log.open(encoding="utf-8", errors="replace") as log:
        log.seek(0, os.SEEK_END)
        while server.process.poll() is None:
            for line in log:
                if server.options.verbose or re.match(r"[EW]\d{4} ", line):
                    show(line.rstrip())
            time.sleep(_POLL_S)
    raise ServeError(
        f"[serve] expected Triton to run until stopped but it ended with {_ending(server)}: {_reason(server)}"
    )


def _ending(server: Server) -> str:
    status = server.process.returncode
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _reason(server: Server) -> str:
    """The last errors of the server's log, each once, without the Python stack."""
    text = _log_text(server)
    errors = re.findall(
        r'^(?:E\d{4} \S+ \d+ \S+\] "(.*)"|(?:error|exec): (.*)|Traceback.*\n(?: .*\n)*(.*))$', text, re.MULTILINE
    )
    messages = [next(filter(None, groups), "").replace("\\n", "\n").split("\n\nAt:")[0] for groups in errors]
    kept = [m for m in dict.fromkeys(messages) if m and not any(noise in m for noise in _NOISE)]
    return "; ".join(kept[-3:]) or "its log holds no error: " + " | ".join(text.splitlines()[-3:])


@contextlib.contextmanager
def _run_directory() -> Iterator[Path]:
    """A temporary directory whose name is also the prefix of the run's shared memory; both go at the end."""
    _sweep()
    run = Path(tempfile.mkdtemp(prefix=_RUN_PREFIX))
    with (run / "lock.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Renamed once locked: a lock that others see is always held by a living run.
        (run / "lock.new").rename(run / "lock")
        try:
            yield run
        finally:
            _remove(run)


def _sweep() -> None:
    """Removes what runs that were killed with SIGKILL left behind: theirs is a lock that nobody holds."""
    for run in Path(tempfile.gettempdir()).glob(f"{_RUN_PREFIX}*"):
        with contextlib.suppress(OSError), (run / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(run)


def _remove(run: Path) -> None:
    for region in _SHARED_MEMORY.glob(f"{run.name}*"):
        with contextlib.suppress(FileNotFoundError):
            region.unlink()
    shutil.rmtree(run, ignore_errors=True)


class _Stopped(BaseException):
    """A signal asked the command to stop."""


class _StopOnSignal:
    """SIGTERM and SIGINT end the main thread's work as an exception does; a second one kills the server."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self._received = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        self._received += 1
        if self._received == 1:
            raise _Stopped
        if self.server is not None:
            self.server.process.kill()


def _stopped(server: Server | None, progress: Progress) -> int:
    if server is None:
        progress.line("stopped before it was ready")
        return 0
    if server.process.returncode == 0:
        progress.line("stopped: every accepted request was answered")
        return 0
    progress.line(
        f"[serve] expected Triton to stop cleanly but it ended with {_ending(server)}; requests may be unanswered"
    )
    return 1


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
