"""What is full or read-only under `spade serve`: /dev/shm, the disk, the memory of the engine. In mounts of its own."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from served import FREE_PORTS, blocks, children, wait_until

from serving.client.client import Client, ServerError
from serving.supervisor.limits import Limits
from serving.supervisor.processes import arguments_of, processes_of_group
from serving.supervisor.supervised import supervised
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeError, ServeOptions
from spade_core.types import Images

LABELS = blocks(1, size=64, classes=8)
INSTANCES = LABELS.astype(np.int32)
MOUNT = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'


@contextmanager
def spade_serve(weights: Path, mounted: str, where: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`spade serve` with a tmpfs of its own at `where`; skips where this user may not mount."""
    refused = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    if refused.returncode:
        pytest.skip(f"mount namespaces are refused: {refused.stderr.strip()}")
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    server = ["serve", "--weights", str(weights), "--threads", "1", "--decoders", "1", *ports]
    command = ["unshare", "-m", "sh", "-c", MOUNT, "sh", mounted, str(where), sys.executable, "-m", "serving.cli"]
    with subprocess.Popen(
        command + server, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | environment
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=120)


def grpc_url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("ready: "))
    return line.split()[1]


def engine_process(server: int) -> int:
    """The process of model `spade` under the process of `spade serve`."""
    found = [
        process.pid
        for child in children(server)
        for process in processes_of_group(child)
        if "/spade/" in " ".join(arguments_of(process.pid)[:2])
    ]
    assert found
    return found[0]


def draw(client: Client, count: int = 1) -> Images | None:
    """The images; None where the server refuses or fails. The client's own time-out fails the test."""
    try:
        return client.synthesize(LABELS.repeat(count, 0), INSTANCES.repeat(count, 0)).images
    except ServerError as error:
        if "DEADLINE" in str(error.status):
            raise
        return None


def fill(path: Path) -> None:
    """A file that leaves no byte free where it lies."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))


def test_full_shared_memory_and_memory_are_survived(tiny_weights: Path) -> None:
    """Whatever a request gets meanwhile, the same images come as soon as there is room again."""
    with spade_serve(tiny_weights, "size=24m", Path("/dev/shm")) as process, Client(grpc_url(process)) as client:
        expected = draw(client)
        assert expected is not None

        def drawn(count: int) -> bool:
            images = draw(client, count)
            assert images is None or (images == expected).all()
            return images is not None

        engine = engine_process(process.pid)
        before = resource.prlimit(engine, resource.RLIMIT_AS)
        resource.prlimit(engine, resource.RLIMIT_AS, (1 << 20, before[1]))  # nothing more can be had
        meanwhile = [drawn(count) for count in (1, 8, 1)]
        with contextlib.suppress(ProcessLookupError):  # the supervisor may have replaced it
            resource.prlimit(engine, resource.RLIMIT_AS, before)
        wait_until(lambda: drawn(8), "images")

        shared = Path(f"/proc/{process.pid}/root/dev/shm")
        fill(shared / "fill")
        assert os.statvfs(shared).f_bavail == 0
        meanwhile += [drawn(count) for count in (1, 8, 1)]
        (shared / "fill").unlink()
        wait_until(lambda: drawn(8), "images")
        print(f"answered while memory was full, and shared memory was: {meanwhile}")


def test_a_server_over_its_limit_of_memory_is_replaced_until_it_is_given_up(tiny_weights: Path) -> None:
    options = ServeOptions(ModelOptions(tiny_weights, precision="fp32", threads=1, decoders=1), **FREE_PORTS)
    with supervised(options, limits=Limits(memory_bytes=1 << 20, attempts=1)) as running:
        wait_until(lambda: running.status.status.restarts.get(("triton", "memory")), "a replacement")
        with pytest.raises(ServeError, match=r"gave up on triton: [0-9]+ MiB in use, allowed are 1"):
            wait_until(lambda: running.check(), "the supervisor to give up")


def test_a_full_disk_is_said_at_the_start(tiny_weights: Path, tmp_path: Path) -> None:
    with spade_serve(tiny_weights, "size=16k", tmp_path, TMPDIR=str(tmp_path)) as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"^error: .*No space left on device", error, re.MULTILINE)
    assert "Traceback" not in error


def test_a_disk_that_fills_up_while_serving_loses_nothing(tiny_weights: Path, tmp_path: Path) -> None:
    """Log, configuration and temporary files lie there. The engine's process dies meanwhile, too, and is replaced."""
    with (
        spade_serve(tiny_weights, "size=64m", tmp_path, TMPDIR=str(tmp_path)) as process,
        Client(grpc_url(process)) as client,
    ):
        expected = draw(client)
        disk = Path(f"/proc/{process.pid}/root{tmp_path}")
        fill(disk / "fill")
        assert os.statvfs(disk).f_bavail == 0
        np.testing.assert_array_equal(draw(client), expected)
        killed = engine_process(process.pid)
        os.kill(killed, signal.SIGKILL)
        np.testing.assert_array_equal(draw(client), expected)
        assert engine_process(process.pid) != killed


def test_a_read_only_folder_for_temporary_files_is_left_aside(tiny_weights: Path, tmp_path: Path) -> None:
    with (
        spade_serve(tiny_weights, "ro", tmp_path, TMPDIR=str(tmp_path)) as process,
        Client(grpc_url(process)) as client,
    ):
        assert draw(client) is not None
