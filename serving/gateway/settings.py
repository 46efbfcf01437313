"""What `spade serve` tells the gateway's process, as JSON on its standard input, so that `ps` shows no secret."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from serving.gateway.doors import OPEN, Doors


@dataclass(frozen=True)
class Settings:
    """The settings of one gateway process.

    Attributes:
        http_fd, metrics_fd: listening sockets, inherited from `spade serve`.
        status_fd: the page of the supervisor's status (serving/supervisor/status.py), inherited too.
        grpc_address: where the gRPC door listens, `HOST:PORT`. `spade serve` holds the port.
        triton_grpc: Triton's private gRPC port, `HOST:PORT`.
        triton_metrics: URL of Triton's own scrape.
        admin_secret: opens Triton's configuration and statistics, which the gateway tells to read only.
        drain_s: longest time after SIGTERM to answer what was accepted, seconds.
        doors: who may come in, and how.
        body_timeout_s: longest time for a client to send a body, seconds.
        waiting_maps: label maps that may wait in the gateway's queue.
        queue_timeout_s: longest wait of a request that names no deadline, seconds.
        max_count: most images of one HTTP request.
        backlog: connections that may wait to be accepted.
        verbose: log what happens, beside warnings.
    """

    http_fd: int
    metrics_fd: int
    status_fd: int
    grpc_address: str
    triton_grpc: str
    triton_metrics: str
    admin_secret: str
    drain_s: float = 30.0
    doors: Doors = OPEN
    body_timeout_s: float = 60.0
    waiting_maps: int = 128
    queue_timeout_s: float = 30.0
    max_count: int = 64
    backlog: int = 2048
    verbose: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises ValueError for a setting that does not exist."""
        values = json.loads(text)
        if unknown := set(values) - {field.name for field in fields(cls)}:
            raise ValueError(f"[gateway] expected known settings but got {', '.join(sorted(unknown))}")
        doors: dict[str, Any] = values.pop("doors")
        lists = {name: tuple(value) for name, value in doors.items() if isinstance(value, list)}
        return cls(doors=Doors(**(doors | lists)), **values)
