"""`spade studio`: `spade serve` and a browser window."""

from __future__ import annotations

import contextlib
import sys
import webbrowser
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from serving.cli.console import Command, say
from serving.cli.options import Running, options

if TYPE_CHECKING:
    from serving.gateway.pair import Pair
    from serving.triton.server import Report, ServeOptions


@click.command(
    cls=Command,
    interrupted="the studio did not start",
    short_help="Paint label maps in a browser, and see the picture.",
)
@options(Running, "model")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="HTTP port; 0 takes a free one."
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser window.")
@click.pass_context
def studio(context: click.Context, model: Running, port: int, browser: bool) -> None:
    """Serve a model on this machine and open the studio, a page to paint label maps in, until Ctrl-C.

    \b
    spade studio
    spade studio --weights coco.safetensors

    `spade serve` has the same page at /studio/, and more options. Exit status: as `spade serve`.
    """
    from serving.cli.serve import model_options
    from serving.gateway.pair import serve_pair
    from serving.triton.foreground import run
    from serving.triton.server import ServeOptions

    @contextlib.contextmanager
    def start(options: ServeOptions, report: Report) -> Iterator[Pair]:
        with serve_pair(options, report) as pair:
            page = f"{pair.http_url}/studio/"
            opened = browser and webbrowser.open(page)
            say(f"the studio is {'open' if opened else 'ready; open it'} at {page}")
            yield pair

    verbose = bool(context.find_root().params.get("verbose"))
    sys.exit(
        run(ServeOptions(model_options(model), http_port=port, grpc_port=0, metrics_port=0, verbose=verbose), start)
    )
