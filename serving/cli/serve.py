"""`spade serve`: a Triton server until a signal."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.console import Command, note
from serving.cli.options import FOLDER, OUT_FILE, SECONDS, Queue, Running, given, option, options

if TYPE_CHECKING:
    from serving.triton.model_config import ModelOptions

_PORT = click.IntRange(0, 65535)


@dataclass(frozen=True)
class Listening:
    """Where the server listens and how long it may take."""

    host: str = option(
        "--host", default="127.0.0.1", show_default=True,
        help="Address of this machine to listen on; keep it behind a proxy.",
    )  # fmt: skip
    http_port: int = option(
        "--http-port", type=_PORT, default=8000, show_default=True, help="HTTP port; 0 takes a free one."
    )
    grpc_port: int = option(
        "--grpc-port", type=_PORT, default=8001, show_default=True, help="gRPC port; 0 takes a free one."
    )
    metrics_port: int = option(
        "--metrics-port",
        type=_PORT,
        default=8002,
        show_default=True,
        help="Port of the Prometheus metrics; 0 takes a free one.",
    )
    start_timeout_s: float = option(
        "--start-timeout",
        type=SECONDS,
        default=300.0,
        show_default=True,
        help="Seconds until the models must be ready.",
    )
    drain_s: int = option(
        "--drain", type=click.IntRange(0, 86400), default=30, show_default=True,
        help="Seconds to answer accepted requests after SIGTERM.",
    )  # fmt: skip
    log_file: Path | None = option(
        "--log-file", type=OUT_FILE, help="Keep Triton's log in this file; its folder must exist."
    )
    repository: Path | None = option(
        "--repository", type=FOLDER,
        help="Serve the live version of this repository (`spade export --publish`) and follow it, instead of "
        "--weights.",
    )  # fmt: skip


@dataclass(frozen=True)
class Doors:
    """Which doors clients come through."""

    direct: bool = option(
        "--direct", is_flag=True,
        help="Open Triton's own ports, without the gateway before them: for trusted networks and for measuring.",
    )  # fmt: skip


@click.command(cls=Command, interrupted="the server did not start", short_help="Serve a model over gRPC and HTTP.")
@options(Running, "model")
@options(Queue, "queue")
@options(Listening, "listening")
@options(Doors, "doors")
@click.pass_context
def serve(context: click.Context, model: Running, queue: Queue, listening: Listening, doors: Doors) -> None:
    """Serve a model over gRPC and HTTP with NVIDIA Triton until SIGTERM or Ctrl-C.

    \b
    spade serve
    spade serve --weights coco.safetensors --precision bf16 --threads 8
    spade serve --repository repo/

    Models: `spade` (tensors) and `spade_image` (PNG in, image file out). Exit status: 0 stopped by a signal with every
    accepted request answered, 1 did not start or ended by itself (the reason is shown), 2 wrong usage.
    """
    if listening.repository is not None and (ignored := given(context, Running, Queue)):
        raise click.UsageError(
            f"{', '.join(ignored)}: the published version decides that; give it to `spade export --publish`, or leave "
            "out --repository"
        )
    from serving.triton.foreground import run
    from serving.triton.model_config import ModelOptions
    from serving.triton.server import ServeOptions

    served = ModelOptions() if listening.repository is not None else model_options(model, queue)
    verbose = bool(context.find_root().params.get("verbose"))
    serve_options = ServeOptions(model=served, verbose=verbose, **asdict(listening))
    if doors.direct:
        from serving.supervisor.supervised import supervised

        sys.exit(run(serve_options, supervised))
    from serving.gateway.pair import serve_pair

    sys.exit(run(serve_options, serve_pair))


def model_options(model: Running, queue: Queue | None = None) -> ModelOptions:
    """The options of a server that runs `model`. Prints the chosen engine. Raises what `choose` raises."""
    from serving.cli.synthesize import announced_choice
    from serving.engines.choose import UNTRAINED_NOTICE
    from serving.triton.model_config import ModelOptions

    announced_choice(model)
    if model.file is None:
        note(f"warning: {UNTRAINED_NOTICE % model.architecture}")
    queueing = {} if queue is None else asdict(queue)
    return ModelOptions(model.file, model.architecture, model.engine, model.precision, model.threads, **queueing)
