"""Starting and stopping a server: reasons of failures, answers to accepted requests, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from served import FREE_PORTS, blocks, children, left_behind, wait_until

from serving.client.client import Client, ServerError
from serving.triton.model_config import ModelOptions
from serving.triton.ready import ready
from serving.triton.server import ServeError, ServeOptions, Server, serve

_COMMAND = """
import sys
from pathlib import Path
from serving.triton.server import ServeOptions
from serving.triton.foreground import run
from serving.triton.model_config import ModelOptions
model = ModelOptions(Path(sys.argv[1]), threads=1, max_batch=4, decoders=1)
sys.exit(run(ServeOptions(model, http_port=int(sys.argv[2]), grpc_port=0, metrics_port=0, log_file=Path(sys.argv[3]))))
"""


class Command:
    """`spade serve` in a process of its own. `lines` is the standard error so far."""

    def __init__(self, weights: Path, folder: Path, http_port: int = 0, output: Path | None = None) -> None:
        self.output = (output or folder) / "stderr.txt"
        self.log = folder / "triton.log"
        arguments = [sys.executable, "-c", _COMMAND, str(weights), str(http_port), str(self.log)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(arguments, stderr=output, cwd=Path(__file__).parents[2])

    @property
    def lines(self) -> str:
        return self.output.read_text()

    @property
    def run(self) -> str:
        """The name of the run's temporary directory, read from Triton's table of options."""
        found = re.search(r"spade-serve-\w{8}", self.log.read_text())
        assert found
        return found.group()

    def url(self, protocol: str) -> str:
        found = re.search(rf"{protocol}://[\d.]+:\d+", self.lines)
        assert found
        return found.group()

    def wait_until_ready(self) -> None:
        wait_until(lambda: "ready:" in self.lines or self.process.poll() is not None, "ready")
        assert "ready:" in self.lines, self.lines


@contextmanager
def spade_serve(weights: Path, folder: Path, http_port: int = 0, output: Path | None = None) -> Iterator[Command]:
    command = Command(weights, folder, http_port, output)
    try:
        yield command
    finally:
        command.process.terminate()
        command.process.wait(60)


def test_sigterm_during_load_answers_what_was_accepted(tiny_weights: Path, tmp_path: Path) -> None:
    labels = blocks(1, count=1, size=64, classes=8)
    instances = labels.astype(np.int32)

    with spade_serve(tiny_weights, tmp_path) as command:
        command.wait_until_ready()
        url, metrics = command.url("grpc"), command.lines.split("metrics ")[1].split()[0]

        images: list[np.ndarray] = []

        def ask_until_refused() -> ServerError:
            with Client(url) as client:
                while True:
                    try:
                        images.append(client.synthesize(labels, instances).images)
                    except ServerError as error:
                        return error

        def pending() -> int:
            text = urllib.request.urlopen(metrics, timeout=10).read().decode()
            return int(re.findall(r"^spade_waiting_requests\{.*\} (\d+)$", text, re.M)[0])

        with ThreadPoolExecutor(24) as clients:
            asking: list[Future[ServerError]] = [clients.submit(ask_until_refused) for _ in range(24)]
            wait_until(lambda: pending() >= 8 and len(images) > 0, "a queue")
            accepted, done = pending(), len(images)
            command.process.send_signal(signal.SIGTERM)
            refused = [future.result() for future in asking]

        assert command.process.wait(60) == 0
        assert "every accepted request was answered" in command.lines
        assert len(images) >= max(done, accepted)
        assert all(answer.retryable for answer in refused), [str(answer) for answer in refused]
        for image in images:
            np.testing.assert_array_equal(image, images[0])
        assert left_behind(command.run) == []


def test_sigkill_of_the_command_leaves_no_process(tiny_weights: Path, tmp_path: Path) -> None:
    with spade_serve(tiny_weights, tmp_path) as command:
        command.wait_until_ready()
        run = command.run
        assert len([entry for entry in left_behind(run) if "triton_python_backend_stub" in entry]) == 2
        command.process.kill()
        command.process.wait()
        # The next run removes the directory; a server of another test may already have done so.
        folder = str(Path(tempfile.gettempdir()) / run)
        wait_until(lambda: set(left_behind(run)) <= {folder}, "the end of Triton and its models")


def test_killed_triton_is_reported_and_cleaned_up(tiny_weights: Path, tmp_path: Path) -> None:
    with spade_serve(tiny_weights, tmp_path) as command:
        command.wait_until_ready()
        run = command.run
        (triton,) = children(command.process.pid)
        os.kill(triton, signal.SIGKILL)
        assert command.process.wait(60) == 1
        assert "expected Triton to run until stopped but it ended with signal SIGKILL" in command.lines
        assert left_behind(run) == []


def test_a_signal_before_ready_stops_at_once(tiny_weights: Path, tmp_path: Path) -> None:
    with spade_serve(tiny_weights, tmp_path) as command:
        wait_until(
            lambda: command.log.is_file() and "TRITONBACKEND_ModelInstance" in command.log.read_text(), "loading"
        )
        run = command.run if "spade-serve-" in command.log.read_text() else ""
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(60) == 0
        assert "stopped before it was ready" in command.lines
        assert not run or left_behind(run) == []


@pytest.mark.parametrize("aborts", [1, 2])
def test_a_triton_that_aborts_while_it_loads_is_started_once_more(
    tiny_weights: Path, caplog: pytest.LogCaptureFixture, aborts: int
) -> None:
    """Triton's Python backend aborts now and then on a busy machine. Two aborts in a row are an error."""
    known, aborted = set(children(os.getpid())), list[int]()

    def abort(_line: str) -> None:
        for triton in set(children(os.getpid())) - known:
            known.add(triton)
            if len(aborted) < aborts:
                aborted.append(triton)
                os.kill(triton, signal.SIGABRT)

    options = ServeOptions(ModelOptions(tiny_weights, threads=1, decoders=1), **FREE_PORTS)
    expected = pytest.raises(ServeError, match="ended with signal SIGABRT") if aborts > 1 else nullcontext()
    with expected, serve(options, abort) as server, Client(server.grpc_url) as client:
        client.synthesize(np.zeros((1, 64, 64), np.uint8), np.zeros((1, 64, 64), np.int32))
    assert len(aborted) == aborts
    assert caplog.text.count("ended with signal SIGABRT: ") == 1
    assert caplog.text.count("it is started once more") == 1


def test_another_server_on_the_port_is_not_taken_for_ours(tiny_server: Server) -> None:
    assert ready(tiny_server.http_url, tiny_server.secret)
    assert not ready(tiny_server.http_url, "another server's")
    assert not ready(tiny_server.grpc_url.replace("grpc", "http"), tiny_server.secret)  # which does not speak HTTP/1


def test_missing_weights_end_with_a_reason(tmp_path: Path) -> None:
    with spade_serve(tmp_path / "absent.safetensors", tmp_path) as command:
        assert command.process.wait(60) == 1
        assert "absent.safetensors" in command.lines
        assert "Traceback" not in command.lines


def test_weights_that_do_not_load_end_with_tritons_reason(tiny_weights: Path, tmp_path: Path) -> None:
    """The header is good, so the launcher starts Triton; the model finds a NaN among the weights."""
    broken = tmp_path / "broken.safetensors"
    data = bytearray(tiny_weights.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    broken.write_bytes(data)
    (tmp_path / "triton.log").write_text('E1124 23:59:59.000000 1 model.cc:1] "an error of yesterday"\n')
    with spade_serve(broken, tmp_path) as command:
        assert command.process.wait(60) == 1
        assert "expected Triton to start but it ended with exit status 1" in command.lines
        assert "failed to load 'spade' version 1" in command.lines
        assert "broken.safetensors" in command.lines
        assert "Traceback" not in command.lines
        assert "yesterday" not in command.lines
        assert left_behind(command.run) == []


def test_the_control_secret_is_not_in_ps(tiny_server: Server) -> None:
    """The secret itself has not changed: test_triton_repository loads a model with the secret."""
    arguments = Path(f"/proc/{tiny_server.process.pid}/cmdline").read_text()
    assert tiny_server.secret not in arguments
    assert arguments.count(f":spade-admin={'x' * len(tiny_server.secret)}") == 2


def test_a_port_in_use_ends_with_a_reason(tiny_weights: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with spade_serve(tiny_weights, tmp_path, http_port=port) as command:
            assert command.process.wait(60) == 1
            assert f"expected http_port {port} to be free on 127.0.0.1" in command.lines
            assert "--http-port" in command.lines


def test_a_log_file_in_a_missing_folder_is_an_error(tiny_weights: Path, tmp_path: Path) -> None:
    with spade_serve(tiny_weights, tmp_path / "missing", output=tmp_path) as command:
        assert command.process.wait(60) == 1
        assert "expected log_file in a folder that exists but got" in command.lines
        assert "Traceback" not in command.lines


def test_a_slow_start_is_given_up(tiny_weights: Path) -> None:
    options = ServeOptions(ModelOptions(tiny_weights, threads=1), start_timeout_s=0.2, **FREE_PORTS)
    with pytest.raises(ServeError, match=r"ready models within 0.2 s .* --start-timeout"), serve(options):
        pass


def test_servers_listen_on_loopback_and_keep_the_control_api_shut(demo_server: Server) -> None:
    sockets = Path(f"/proc/{demo_server.process.pid}/net/tcp").read_text().split("\n")
    ports = {
        f"{int(url.rstrip('/metrics').rsplit(':', 1)[1]):04X}" for url in (demo_server.http_url, demo_server.grpc_url)
    }
    local = {line.split()[1] for line in sockets[1:] if line and line.split()[3] == "0A"}
    assert {address.split(":")[0] for address in local if address.split(":")[1] in ports} == {"0100007F"}
    for path in (
        "v2/repository/index",
        "v2/models/spade/unload",
        "v2/models/spade/config",
        "v2/systemsharedmemory/status",
    ):
        request = urllib.request.Request(f"{demo_server.http_url}/{path}", method="POST" if "repo" in path else "GET")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        caught.value.close()
        assert caught.value.code in (403, 404), path
