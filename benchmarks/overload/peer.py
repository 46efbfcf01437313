"""A real Triton whose own dynamic batcher stands before our engine."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from serving.triton.environment import environment
from serving.triton.exec_with_parent import __file__ as exec_with_parent
from serving.triton.install import find_tritonserver, make_backend_directory
from serving.triton.model_config import ModelOptions, spade_config
from serving.triton.ports import free_ports
from serving.triton.run_directory import run_directory
from serving.triton.served_facts import served_config
from serving.triton.server_log import last_errors

MODEL = Path(__file__).parent / "peer_model.py"
_START_S, _STOP_S = 300.0, 60.0


def peer_config(options: ModelOptions) -> pb.ModelConfig:
    """The configuration of `spade` with Triton's queue: the same bounds as ours, and refusals at the same limits."""
    model = spade_config(options, served_config(options))
    policy = pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=round(options.queue_timeout_s * 1e6),
        allow_timeout_override=True,  # a request's own parameter `timeout` counts where it is shorter
        max_queue_size=options.queue_size,
    )
    model.dynamic_batching.CopyFrom(
        pb.ModelDynamicBatching(max_queue_delay_microseconds=options.queue_delay_us, default_queue_policy=policy)
    )
    return model


@contextlib.contextmanager
def serve_peer(options: ModelOptions) -> Iterator[str]:
    """Triton with model `spade` alone. Yields its gRPC address; raises RuntimeError where it does not start."""
    install = find_tritonserver()
    with run_directory() as run:
        folder = run / "models" / "spade"
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(text_format.MessageToString(peer_config(options)), encoding="utf-8")
        shutil.copyfile(MODEL, folder / "1" / "model.py")
        ports = free_ports("127.0.0.1", {"http": 0, "grpc": 0, "metrics": 0})
        command = [
            str(install.binary), f"--model-repository={run / 'models'}", "--disable-auto-complete-config",
            f"--backend-directory={make_backend_directory(install, run / 'backends')}",
            f"--backend-config=python,shm-region-prefix-name={run.name}", "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1", f"--http-port={ports['http']}",
            f"--grpc-port={ports['grpc']}", f"--metrics-port={ports['metrics']}",
        ]  # fmt: skip
        if not Path("/dev/nvidiactl").exists():
            command += ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
        with (run / "triton.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", exec_with_parent, str(os.getpid()), *command],
                env=environment(install, run.name),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            _wait(process, f"http://127.0.0.1:{ports['http']}/v2/models/spade/ready", run / "triton.log")
            yield f"grpc://127.0.0.1:{ports['grpc']}"
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(
        f"[overload] expected Triton to start but it did not: {last_errors(log.read_text(errors='replace'))}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):  # its model process, where Triton was killed
        os.killpg(process.pid, 9)
