"""The `spade` command: each subcommand is a thin layer over a function of the same name."""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from serving.cli.evaluate import evaluate
from serving.cli.export import export, repository
from serving.cli.model_options import FILE, QUEUE, given, model_options, queue_options
from serving.cli.train import scenes, train
from spade_core.config import PRESETS

_stdout, _stderr = Console(highlight=False), Console(stderr=True, highlight=False)

_PATH = click.Path(path_type=Path)
_PUBLISHED = ("weights", "preset", "engine", "precision", "threads", *QUEUE)


@click.group(context_settings={"auto_envvar_prefix": "SPADE", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="spade-serve")
@click.option("-v", "--verbose", is_flag=True, help="Log what is chosen and why.")
def main(verbose: bool) -> None:
    """SPADE Serve: label maps in, images out.

    Every option is also an environment variable: `spade serve --grpc-port` is SPADE_SERVE_GRPC_PORT.
    """
    handler = RichHandler(console=_stderr, show_time=False, show_path=False)
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler], force=True)


@main.command()
@click.option("--labels", "labels", type=_PATH, multiple=True, help="A label map or a folder of them; may be repeated.")
@click.argument("more_labels", type=_PATH, nargs=-1, metavar="[LABELS]...")
@click.option("--instances", type=_PATH, help="Instance maps: a folder of the same names, or one file.")
@click.option("--style", "style_image", type=FILE, help="Take the style of this image (needs a style encoder).")
@click.option("--seed", type=click.IntRange(0), help="Sample the style from this seed.  [default: 0]")
@click.option("--colours", type=FILE, help="For RGB label maps: a CSV `id,r,g,b,name` or JSON colour table.")
@model_options
@click.option("--server", metavar="URL", help="Let a server compute: grpc://HOST:PORT or http://HOST:PORT.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Maps at once, here or in flight.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["png", "jpeg", "webp"]),
    default="png",
    show_default=True,
    help="Of the image files.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the images.")
def synthesize(
    labels: tuple[Path, ...],
    more_labels: tuple[Path, ...],
    instances: Path | None,
    style_image: Path | None,
    seed: int | None,
    colours: Path | None,
    weights: Path | None,
    preset: str,
    engine: str,
    precision: str,
    threads: int | None,
    server: str | None,
    batch: int,
    image_format: str,
    out: Path,
) -> None:
    """Turn label maps into images, here or on a server.

    Maps of any size are brought to the model's with NEAREST. A bad file is reported at the end and does not stop the
    others.

    \b
    spade synthesize --labels maps/ --out images/
    spade synthesize --labels a.png b.png --seed 7 --out images/
    spade synthesize --labels maps/ --server grpc://localhost:8001 --out images/

    Exit status: 0 all images were written, 1 some were not, 2 wrong usage, 130 interrupted.
    """
    from serving.client.client import Client
    from serving.client.files import find_jobs, synthesize_local, synthesize_remote
    from serving.engines.choose import load_checkpoint, make_engine
    from spade_core.maps.colours import ColourTable
    from spade_core.models.style import style_from_seed

    with _errors_as_messages():
        jobs = find_jobs([*labels, *more_labels], instances, out, image_format)
        table = None if colours is None else ColourTable.load(colours)
        common: dict[str, Any] = {"colours": table, "image_format": image_format}
        if server is not None:
            style = None if style_image is None else _style_of(load_checkpoint(weights, preset), style_image, seed)
            if style is None:
                common["seed"] = seed
            with _Bar(len(jobs)) as bar:
                failures = synthesize_remote(
                    lambda: Client(server),
                    jobs,
                    style=style,
                    in_flight=batch,
                    done=bar.done,
                    **{"seed": None, **common},
                )
        else:
            checkpoint = load_checkpoint(weights, preset)
            style = None
            if style_image is not None:
                style = _style_of(checkpoint, style_image, seed)
            elif checkpoint.config.style:
                style = style_from_seed(seed or 0)
            elif seed is not None:
                raise click.UsageError(f"--seed: model {checkpoint.config.preset!r} has no style input; leave it out")
            running = make_engine(checkpoint, engine, precision, threads)
            with _Bar(len(jobs)) as bar:
                failures = synthesize_local(running, jobs, style=style, batch=batch, done=bar.done, **common)
    _stdout.print(f"{len(jobs) - len(failures)} of {len(jobs)} images written to {out}", soft_wrap=True)
    for failure in failures:
        _stderr.print(f"failed: {failure.path}: {failure.reason}", markup=False, soft_wrap=True)
    if failures:
        sys.exit(1)


@main.command()
@model_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; keep it behind a proxy.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0 takes a free one.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8002, show_default=True, help="Prometheus.")
@queue_options
@click.option(
    "--start-timeout",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds until the models must be ready.",
)
@click.option(
    "--drain",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Seconds to answer accepted requests after SIGTERM.",
)
@click.option("--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Keep Triton's log here.")
@click.option(
    "--repository",
    "served",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Serve the live version of this repository (`spade export --publish`) and follow it, instead of --weights.",
)
@click.pass_context
def serve(
    context: click.Context, weights: Path | None, preset: str, engine: str, precision: str, threads: int | None,
    host: str, http_port: int, grpc_port: int, metrics_port: int, queue: dict[str, Any], start_timeout: float,
    drain: int, log_file: Path | None, served: Path | None,
) -> None:  # fmt: skip
    """Serve a model over gRPC and HTTP with NVIDIA Triton until SIGTERM or Ctrl-C.

    \b
    spade serve
    spade serve --weights coco.safetensors --precision bf16 --threads 8
    spade serve --repository repo/

    Models: `spade` (tensors) and `spade_image` (PNG in, image file out). Exit status: 0 stopped by a signal with every
    accepted request answered, 1 did not start or ended by itself (the reason is shown), 2 wrong usage.
    """
    from serving.triton.model_config import ModelOptions
    from serving.triton.server import ServeOptions, run

    if served is not None and (ignored := given(context, _PUBLISHED)):
        raise click.UsageError(
            f"{', '.join(ignored)}: the published version decides that; give it to `spade export --publish`, or leave "
            "out --repository"
        )
    with _errors_as_messages():
        model = ModelOptions(
            weights=weights, preset=preset, engine=engine, precision=precision, threads=threads, **queue
        )  # fmt: skip
        options = ServeOptions(
            model=model, host=host, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port,
            start_timeout_s=start_timeout, drain_s=drain, log_file=log_file, repository=served,
            verbose=context.find_root().params["verbose"],
        )  # fmt: skip
    if served is None:
        _say_if_untrained(weights, preset)
    sys.exit(run(options))


@main.command()
@click.argument("generator", type=FILE, metavar="NET_G.pth")
@click.option("--encoder", type=FILE, help="The style encoder's file, latest_net_E.pth.")
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), help="What the weights are; found from their shapes without it."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Checkpoint to write (.safetensors)."
)
def convert(generator: Path, encoder: Path | None, preset: str | None, out: Path) -> None:
    """Turn published SPADE weights (latest_net_G.pth) into a checkpoint.

    Nothing in the file is executed; spectral norm is folded into the weights.

    \b
    spade convert latest_net_G.pth --out coco.safetensors
    """
    from spade_core.config import preset as preset_config
    from spade_core.files.convert import convert as run

    with _errors_as_messages():
        report = run(generator, encoder, out, config=None if preset is None else preset_config(preset))
    _stdout.print(str(report), markup=False, soft_wrap=True)


@main.command()
@click.argument("weights", type=FILE, required=False)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Show a preset's architecture instead of a file's.")
@click.option("--baselines", is_flag=True, help="Show the paper's baselines and ablations of it in one table.")
def info(weights: Path | None, preset: str | None, baselines: bool) -> None:
    """Show what a checkpoint holds and what it costs: architecture, parameters, multiply-adds, origin.

    \b
    spade info coco.safetensors
    spade info --preset coco --baselines
    """
    from spade_core.config import preset as preset_config
    from spade_core.files.checkpoints import info as read_info
    from spade_core.models.costs import dense_macs, parameters

    if (weights is None) == (preset is None):
        raise click.UsageError("give either a checkpoint or --preset")
    table = Table(show_header=False, box=None)
    with _errors_as_messages():
        if weights is not None:
            header = read_info(weights)
            config, metadata = header.config, header.metadata
            table.add_row("file", f"{weights}, {weights.stat().st_size / 1e6:.1f} MB")
            table.add_row("sha256", hashlib.sha256(weights.read_bytes()).hexdigest())
            table.add_row("weights", header.dtype)
            table.add_row(
                "style encoder", f"{header.encoder_parameters / 1e6:.2f} M" if header.encoder_parameters else "no"
            )
        else:
            config, metadata = preset_config(preset or ""), {}
    if baselines:
        _stdout.print(_baselines_table(config))
        return
    for name, value in config.to_dict().items():
        table.add_row(name, str(value))
    table.add_row("semantic_nc", str(config.semantic_nc))
    table.add_row("parameters", f"{parameters(config) / 1e6:.2f} M")
    table.add_row("dense form", f"{dense_macs(config) / 1e9:.1f} GMAC an image")
    for name, value in metadata.items():
        table.add_row(name, value)
    _stdout.print(table)


@main.command()
@model_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Folder of the images.",
)
@click.option("--count", type=click.IntRange(1, 8), default=8, show_default=True, help="Label maps in the batch.")
def demo(
    weights: Path | None, preset: str, engine: str, precision: str, threads: int | None, out: Path, count: int
) -> None:
    """Start a server, send it a batch of drawn label maps over gRPC, write images and a contact sheet, stop it."""
    from serving.cli.demo_run import demo as run
    from serving.triton.model_config import ModelOptions

    with _errors_as_messages():
        model = ModelOptions(weights=weights, preset=preset, engine=engine, precision=precision, threads=threads)
        _say_if_untrained(weights, preset)
        for line in run(model, out, count):
            _stdout.print(line, markup=False, soft_wrap=True)


main.add_command(export)
main.add_command(repository)
main.add_command(train)
main.add_command(scenes)
main.add_command(evaluate)


class _Bar:
    """A progress bar on standard error that names each failure as it happens."""

    def __init__(self, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal)
        self._task = self._progress.add_task("images", total=total)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def done(self, job: Any, failure: Any) -> None:  # noqa: ARG002 - one signature for every listener
        self._progress.advance(self._task)


class _errors_as_messages:
    """An expected error ends the command with its message and exit status 1; a bug keeps its traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ValueError | OSError | RuntimeError) and not isinstance(error, click.exceptions.Exit):
            _stderr.print(f"error: {error}", markup=False, soft_wrap=True)
            sys.exit(1)
        if isinstance(error, KeyboardInterrupt):
            _stderr.print("interrupted: the images written so far are whole")
            sys.exit(130)


def _baselines_table(config: Any) -> Table:
    from spade_core.models.costs import baseline_costs
    from spade_core.models.registry import ABLATIONS

    table = Table("generator", "configuration", box=None, title=f"of '{config.preset}', {config.height}x{config.width}")
    table.add_column("parameters, M", justify="right")
    table.add_column("dense form, GMAC", justify="right")
    for name, params, macs in baseline_costs(config):
        change = ", ".join(f"{field} {value}" for field, value in ABLATIONS[name].items())
        table.add_row(name, change, f"{params / 1e6:.2f}", f"{macs / 1e9:.1f}")
    return table


def _say_if_untrained(weights: Path | None, preset: str) -> None:
    from serving.engines.choose import UNTRAINED_NOTICE

    if weights is None:
        logging.getLogger(__name__).warning(UNTRAINED_NOTICE, preset)


def _style_of(checkpoint: Any, image: Path, seed: int | None) -> Any:
    from spade_core.models.style import style_from_image
    from spade_core.photos import read_photo

    if checkpoint.encoder is None:
        raise click.UsageError(
            f"--style: model {checkpoint.config.preset!r} has no style encoder; convert the weights with --encoder"
        )
    return style_from_image(checkpoint.encoder, read_photo(image), checkpoint.config, seed)


if __name__ == "__main__":
    main()
