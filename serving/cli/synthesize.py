"""`spade synthesize`: files of label maps to files of images, here or on a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.cli.console import Command, interruptible, note, progress_bar, say
from serving.cli.options import BATCH, FILE, OUT_FOLDER, SEED, Running, given, option, options
from serving.cli.styles import Offered, refuse_styles, seed_range, style_names, styled_jobs, write_sheet
from serving.cli.synthesize_on_ray import Cluster, Wanted, on_ray

if TYPE_CHECKING:
    from serving.cli.jobs import Failure, Job
    from spade_core.config import GeneratorConfig
    from spade_core.files.weights import Weights
    from spade_core.maps.colours import ColourTable

_PATH = click.Path(path_type=Path)
_NAMED = 3  # files that a message names when several failed for one reason


@dataclass(frozen=True)
class Maps:
    """The label maps to draw, and their style."""

    labels: tuple[Path, ...] = option(
        "--labels", type=_PATH, multiple=True, help="A label map or a folder of them; may be repeated."
    )
    instances: Path | None = option(
        "--instances", type=_PATH, help="Instance maps: a folder of the same names, or one file."
    )
    style: Path | None = option("--style", type=FILE, help="Take the style of this image (needs a style encoder).")
    style_name: str | None = option("--style-name", metavar="NAME", help="Take a style of the weights, such as winter.")
    seed: int | None = option(
        "--seed", type=SEED, help="Sample the style of all images from this seed.  [default: 0, 1, 2, ..; first noon]"
    )
    seeds: range | None = option(
        "--seeds", metavar="FIRST:END", callback=seed_range,
        help="Draw each map with the seeds from FIRST up to END, such as 0:8, and all side by side in sheet.png.",
    )  # fmt: skip
    styles: tuple[str, ...] = option(
        "--styles", metavar="NAMES", callback=style_names,
        help="Draw each map in the styles of these names, or in `all`, and all side by side in sheet.png.",
    )  # fmt: skip
    colours: Path | None = option(
        "--colours", type=FILE, help="For RGB label maps: a CSV `id,r,g,b,name` or JSON colour table."
    )


@dataclass(frozen=True)
class Output:
    """Where the images are computed and written."""

    server: str | None = option(
        "--server", metavar="URL",
        help="Let a server compute: grpc://HOST:PORT or http://HOST:PORT; grpcs:// or https:// for TLS.",
    )  # fmt: skip
    ca_file: Path | None = option(
        "--ca-file",
        type=FILE,
        help="With grpcs:// or https://: authorities (PEM) that may sign the server's certificate.",
    )
    batch: int = option(
        "--batch",
        type=BATCH,
        default=8,
        show_default=True,
        help="Label maps in one batch here, or requests to a server at once.",
    )
    format: str = option(
        "--format", type=click.Choice(["png", "jpeg", "webp"]), default="png", show_default=True,
        help="File format of the images.",
    )  # fmt: skip
    out: Path = option("--out", type=OUT_FOLDER, required=True, help="Folder of the images.")


@click.command(
    cls=Command, interrupted="the images written so far are whole", short_help="Turn label maps into images."
)
@click.argument("more_labels", type=_PATH, nargs=-1, metavar="[LABELS]...")
@options(Maps, "maps")
@options(Running, "model")
@options(Output, "output")
@options(Cluster, "cluster")
@click.pass_context
def synthesize(
    context: click.Context,
    more_labels: tuple[Path, ...],
    maps: Maps,
    model: Running,
    output: Output,
    cluster: Cluster,
) -> None:
    """Turn label maps into images, here or on a server.

    Maps of any size are resized to the model's size with NEAREST. A bad file is reported at the end and does not stop
    the others.

    \b
    spade synthesize --labels maps/ --out images/
    spade synthesize --labels a.png b.png --seed 7 --out images/
    spade synthesize a.png --style-name winter --out images/
    spade synthesize a.png --styles all --out images/
    spade synthesize --labels maps/ --server grpc://localhost:8001 --out images/
    spade synthesize --labels shards/ --count 10 --out images/ --ray

    With --server, the server decides model, engine and precision; --weights is then for --style, and only its style
    encoder is used.

    With --ray, folders may hold Parquet files and WebDataset shards, and images are named by what they hold.

    Exit status: 0 all images were written, 1 some were not, 2 wrong usage, 130 interrupted.
    """
    refuse_styles(maps)
    if cluster.ray is not None:
        _refuse_options_beside_ray(maps, output)
        paths = [*maps.labels, *more_labels]
        wanted = Wanted(paths, maps.instances, maps.seed, maps.colours, output.format, output.batch, output.out)
        on_ray(wanted, model, cluster, announced_choice(model))
        return
    if without := given(context, Cluster):
        raise click.UsageError(f"{', '.join(without)}: means nothing without --ray; leave it out")
    if output.server is not None:
        _refuse_options_of_the_server(context, maps)
    elif output.ca_file is not None:
        raise click.UsageError("--ca-file: there is no connection without --server; leave it out")
    from serving.cli.jobs import find_jobs
    from spade_core.maps.colours import ColourTable

    jobs = find_jobs([*maps.labels, *more_labels], maps.instances, output.out, output.format)
    colours = None if maps.colours is None else ColourTable.load(maps.colours)
    run = _here if output.server is None else _on_server
    jobs, failures = run(jobs, maps, model, output, colours)
    say(f"{len(jobs) - len(failures)} of {len(jobs)} images written to {output.out}")
    for line in failure_lines(failures):
        note(line)
    if maps.seeds is not None or maps.styles:
        say(f"side by side in {write_sheet(jobs, output.out)}")
    if failures:
        sys.exit(1)


def _refuse_options_of_the_server(context: click.Context, maps: Maps) -> None:
    encoder = ("weights", "preset") if maps.style is not None else ()
    if ignored := given(context, Running, leave_out=encoder):
        raise click.UsageError(
            f"{', '.join(ignored)}: the server decides that; give it to `spade serve`, or leave out --server"
        )


def _refuse_options_beside_ray(maps: Maps, output: Output) -> None:
    if output.server is not None:
        raise click.UsageError("--ray, --server: expected one of them; a server has its own machines")
    if maps.style is not None:
        raise click.UsageError("--style: is not read with --ray, which draws by seeds; leave it out")
    if maps.style_name is not None or maps.seeds is not None or maps.styles:
        raise click.UsageError("--style-name, --seeds, --styles: are not read with --ray; give --seed, or leave it out")
    if maps.instances is not None and maps.instances.is_file():
        raise click.UsageError("--instances: expected a folder with --ray but got a file")


def _here(
    jobs: Sequence[Job], maps: Maps, model: Running, output: Output, colours: ColourTable | None
) -> tuple[list[Job], list[Failure]]:
    """Draw the jobs, in several styles where `maps` asks for them; returns the jobs drawn and those that failed."""
    from serving.cli.jobs import synthesize_local
    from serving.engines.choose import load_weights, start_engine
    from spade_core.models.style import STYLES, read_styles, style_from_seed

    choice = announced_choice(model)
    weights = load_weights(model.file, model.architecture)
    _check_instances(weights.config, maps.instances)
    style = None
    if maps.style is not None:
        style = _style_of(weights, maps.style, maps.seed)
    elif weights.config.style:
        style = style_from_seed(maps.seed or 0)
    elif maps.seed is not None:
        raise click.UsageError(f"--seed: model {weights.config.preset!r} has no style input; leave it out")
    styled = styled_jobs(jobs, maps, Offered(weights.config.style, read_styles(weights.metadata.get(STYLES))))
    with progress_bar("images", len(styled)) as advance:

        def work() -> list[Failure]:
            engine = start_engine(weights, choice, model.threads)
            return synthesize_local(
                engine, styled, style=style, colours=colours, batch=output.batch, image_format=output.format,
                done=lambda _job, _failure: advance(1),
            )  # fmt: skip

        return styled, interruptible(work)


def _on_server(
    jobs: Sequence[Job], maps: Maps, model: Running, output: Output, colours: ColourTable | None
) -> tuple[list[Job], list[Failure]]:
    """As `_here`, by a server."""
    from serving.cli.jobs import synthesize_remote
    from serving.client import Client
    from serving.engines.choose import load_weights

    server = output.server or ""
    with Client(server, ca_file=output.ca_file) as client:
        client.check_ready()  # one message for all files
        info = client.info()
    styled = styled_jobs(jobs, maps, Offered(info.style, info.named_styles()))
    style = None
    if maps.style is not None:
        style = _style_of(load_weights(model.file, model.architecture), maps.style, maps.seed)
    with progress_bar("images", len(styled)) as advance:
        failures = synthesize_remote(
            lambda: Client(server, ca_file=output.ca_file), styled, style=style,
            seed=None if maps.style is not None else maps.seed,
            colours=colours, in_flight=output.batch, image_format=output.format,
            done=lambda _job, _failure: advance(1),
        )  # fmt: skip
    return styled, failures


def announced_choice(model: Running) -> Any:
    """The engine and precision for this machine, printed as one line. Raises what `choose` raises."""
    from serving.engines.choose import choose_for

    choice = choose_for(model.file, model.engine, model.precision)
    note(str(choice))
    if choice.warning:
        note(f"warning: {choice.warning}")
    return choice


def _check_instances(config: GeneratorConfig, instances: Path | None) -> None:
    if config.instance_edges and instances is None:
        raise click.UsageError(f"--instances: model {config.preset!r} reads instance maps; name their folder")
    if not config.instance_edges and instances is not None:
        raise click.UsageError(f"--instances: model {config.preset!r} reads no instance maps; leave it out")


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """A line for each reason, with the files that failed for the reason."""
    by_reason: dict[str, list[str]] = {}
    for failure in failures:
        by_reason.setdefault(failure.reason, []).append(str(failure.path))
    lines = []
    for reason, paths in by_reason.items():
        more = f" and {len(paths) - _NAMED} others" if len(paths) > _NAMED else ""
        lines.append(f"failed: {', '.join(paths[:_NAMED])}{more}: {reason}")
    return lines


def _style_of(weights: Weights, image: Path, seed: int | None) -> Any:
    from spade_core.models.photo_style import style_from_image
    from spade_core.photos import read_photo

    if weights.encoder is None:
        raise click.UsageError(
            f"--style: model {weights.config.preset!r} has no style encoder; convert the weights with --encoder"
        )
    return style_from_image(weights.encoder, read_photo(image), weights.config, seed)
