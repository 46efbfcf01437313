"""The command line of `tritonserver`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from serving.protocol import MODELS
from serving.traces import TRACEPARENT, collected
from serving.triton.announcement import ADMIN_HEADER
from serving.triton.install import TritonInstall

# Clients need none of these interfaces, and published attacks came in through several of them.
_RESTRICTED = "shared-memory,model-config,model-repository,statistics,trace,logging"

# The header becomes a parameter of the request, which the models read.
_FORWARD_TRACES = [
    f"--grpc-header-forward-pattern=^{TRACEPARENT}$",
    f"--http-header-forward-pattern=(?i)^{TRACEPARENT}$",
]


class Doors(Protocol):
    """Where a server listens: `serving.triton.server.ServeOptions`."""

    @property
    def host(self) -> str: ...
    @property
    def http_port(self) -> int: ...
    @property
    def grpc_port(self) -> int: ...
    @property
    def metrics_port(self) -> int: ...
    @property
    def drain_s(self) -> int: ...


def triton_command(
    install: TritonInstall, doors: Doors, repository: Path, backends: Path, name: str, secret: str
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
        f"--http-address={doors.host}",
        f"--http-port={doors.http_port}",
        f"--grpc-address={doors.host}",
        f"--grpc-port={doors.grpc_port}",
        f"--metrics-address={doors.host}",
        f"--metrics-port={doors.metrics_port}",
        f"--http-restricted-api={_RESTRICTED}:{ADMIN_HEADER}={secret}",
        f"--grpc-restricted-protocol={_RESTRICTED}:{ADMIN_HEADER}={secret}",
        f"--exit-timeout-secs={doors.drain_s}",
        *(_FORWARD_TRACES if collected() else []),
        f"--allow-gpu-metrics={str(gpu).lower()}",
        *([] if gpu else ["--pinned-memory-pool-byte-size=0"]),
    ]
