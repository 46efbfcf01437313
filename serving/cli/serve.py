"""`spade serve`: a Triton server until a signal."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.console import Command, note
from serving.cli.options import COUNT, FILE, FOLDER, OUT_FILE, SECONDS, Queue, Running, Weights, given, option, options

if TYPE_CHECKING:
    from serving.gateway.doors import Doors
    from serving.triton.model_config import ModelOptions

_DIRECT = ("--direct", "--without-keys", "--vulnerable-triton")  # of Entrance, what --direct knows
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
class Entrance:
    """Who may come in, and through which doors."""

    direct: bool = option(
        "--direct", is_flag=True,
        help="Open Triton's own ports, without the gateway before them: for trusted networks and for measuring.",
    )  # fmt: skip
    vulnerable_triton: bool = option(
        "--vulnerable-triton", is_flag=True,
        help="With --direct: open the ports beyond this machine although this Triton is known to be vulnerable.",
    )  # fmt: skip
    keys: Path | None = option(
        "--keys", type=FILE, help="Let in callers with a key of this file (`spade key`), which may change meanwhile."
    )
    without_keys: bool = option(
        "--without-keys", is_flag=True, help="Let everybody in, also where --host opens the doors beyond this machine."
    )
    per_minute: int | None = option(
        "--per-minute", type=COUNT,
        help="Images a minute for each key without a limit of its own, or for each address.  [default: no limit]",
    )  # fmt: skip
    cors: tuple[str, ...] = option(
        "--cors", metavar="ORIGIN", multiple=True,
        help="Let pages of this origin (https://example.org, or *) call; may be repeated.",
    )  # fmt: skip
    tls_cert: Path | None = option("--tls-cert", type=FILE, help="Speak TLS with this certificate chain (PEM).")
    tls_key: Path | None = option("--tls-key", type=FILE, help="The certificate's key (PEM).")
    trusted_proxy: tuple[str, ...] = option(
        "--trusted-proxy", metavar="NETWORK", multiple=True,
        help="Believe X-Forwarded-For of this address or network; may be repeated.",
    )  # fmt: skip
    max_body_mib: int = option(
        "--max-body-mib", type=click.IntRange(1, 1024), default=64, show_default=True,
        help="Largest body of an HTTP request, MiB.",
    )  # fmt: skip
    json_log: bool = option("--json-log", is_flag=True, help="Log a line of JSON for each request.")

    def doors(self) -> Doors:
        """As the gateway takes them."""
        from serving.gateway.doors import Doors

        def text(path: Path | None) -> str | None:
            return None if path is None else str(path.resolve())

        return Doors(
            text(self.keys), self.without_keys, self.per_minute, self.cors, text(self.tls_cert), text(self.tls_key),
            self.trusted_proxy, self.max_body_mib << 20, self.json_log,
        )  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """What the files must be."""

    sha256: str | None = option(
        "--sha256", metavar="HEX",
        help="What the weights must hash to.  [default: as the file WEIGHTS.sha256 says, if there is one]",
    )  # fmt: skip


@dataclass(frozen=True)
class OwnModel:
    """A network of one's own."""

    entry: str | None = option(
        "--model", metavar="MODULE:FUNCTION",
        help="Serve the network that this function returns, a OneHotModel of spade_core, instead of --weights.",
    )  # fmt: skip


@click.command(cls=Command, interrupted="the server did not start", short_help="Serve a model over gRPC and HTTP.")
@options(Running, "running")
@options(OwnModel, "own")
@options(Checked, "checked")
@options(Queue, "queue")
@options(Listening, "listening")
@options(Entrance, "entrance")
@click.pass_context
def serve(
    context: click.Context, running: Running, own: OwnModel, checked: Checked, queue: Queue, listening: Listening,
    entrance: Entrance,
) -> None:  # fmt: skip
    """Serve a model over gRPC and HTTP with NVIDIA Triton until SIGTERM or Ctrl-C.

    \b
    spade serve
    spade serve --weights coco.safetensors --precision bf16 --threads 8
    spade serve --repository repo/
    spade serve --model my_models:spadenet

    Models: `spade` (tensors) and `spade_image` (PNG in, image file out). Exit status: 0 stopped by a signal with every
    accepted request answered, 1 did not start or ended by itself (the reason is shown), 2 wrong usage.
    """
    if listening.repository is not None and (ignored := given(context, Running, OwnModel, Checked, Queue)):
        raise click.UsageError(
            f"{', '.join(ignored)}: the published version decides that; give it to `spade export --publish`, or leave "
            "out --repository"
        )
    from serving.triton.foreground import run
    from serving.triton.model_config import ModelOptions
    from serving.triton.server import ServeOptions

    served = ModelOptions()
    if own.entry is not None:
        served = _own_options(context, own.entry, running, queue)
    elif listening.repository is None:
        served = replace(model_options(running, queue), sha256=checked.sha256)
    verbose = bool(context.find_root().params.get("verbose"))
    serve_options = ServeOptions(model=served, verbose=verbose, **asdict(listening))
    doors = entrance.doors()
    try:
        doors.check(listening.host)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if entrance.direct:
        if ignored := [name for name in given(context, Entrance) if name not in _DIRECT]:
            raise click.UsageError(f"{', '.join(ignored)}: Triton's own ports know none of it; leave out --direct")
        from serving.supervisor.supervised import supervised
        from serving.triton.exposure import check_exposure
        from serving.triton.install import find_tritonserver

        check_exposure(listening.host, find_tritonserver().version, entrance.vulnerable_triton)
        sys.exit(run(serve_options, supervised))
    from serving.gateway.pair import serve_pair

    sys.exit(run(serve_options, partial(serve_pair, doors=doors)))


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


def _own_options(context: click.Context, entry: str, running: Running, queue: Queue) -> ModelOptions:
    """The options of a server that runs the network of an entry point. Raises UsageError and ValueError."""
    from serving.engines.choose import choose_one_hot
    from serving.engines.entry_point import EntryPoint
    from serving.triton.model_config import ModelOptions

    if ignored := given(context, Weights, Checked):
        raise click.UsageError(f"{', '.join(ignored)}: the function of --model loads its own weights; leave it out")
    note(f"{choose_one_hot(running.engine, running.precision)}, the model of {entry}")
    return ModelOptions(
        engine=running.engine, threads=running.threads, entry=EntryPoint(entry, str(Path.cwd())), **asdict(queue)
    )
