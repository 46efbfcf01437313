"""`spade demo`: the main job end to end. A server, a batch of label maps over gRPC, images and a contact sheet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.console import Command, say
from serving.cli.options import OUT_FOLDER, Running, options

if TYPE_CHECKING:
    from serving.triton.model_config import ModelOptions

CALLS = 5


@click.command(
    cls=Command, interrupted="the server was stopped", short_help="Run a server, a batch and a client end to end."
)
@options(Running, "model")
@click.option("--out", type=OUT_FOLDER, default=Path("out/demo"), show_default=True, help="Folder of the images.")
@click.option("--count", type=click.IntRange(1, 8), default=8, show_default=True, help="Label maps in the batch.")
def demo(model: Running, out: Path, count: int) -> None:
    """Start a server, send it a batch of drawn label maps over gRPC, write images and a contact sheet, stop it."""
    from serving.cli.serve import model_options

    for line in run_demo(model_options(model), out, count):
        say(line)


def run_demo(model: ModelOptions, out: Path, count: int) -> Iterator[str]:
    """Run the demo, yielding a line for each result. Raises ServeError and ServerError with the server's reason."""
    import numpy as np

    from serving.client import Client
    from serving.progress import Progress
    from serving.requests.images import encode_images, read_encoding, write_image
    from serving.triton.served_facts import served_config
    from serving.triton.server import ServeOptions, serve
    from spade_core.maps.colours import class_palette
    from spade_core.maps.drawn import demo_map
    from spade_core.maps.sheet import contact_sheet

    config = served_config(model)
    drawn = [demo_map(seed, config) for seed in range(count)]
    labels = np.stack([d[0] for d in drawn])  # [count, H, W]
    instances = np.stack([d[1] for d in drawn]) if config.instance_edges else None
    seeds = np.arange(count) if config.style else None
    # Nobody else sends requests, so an interrupted demo has none to answer.
    options = ServeOptions(model, http_port=0, grpc_port=0, metrics_port=0, drain_s=0)
    with Progress() as progress, serve(options, progress.report) as server:
        progress.done(f"Triton is ready at {server.grpc_url}, metrics at {server.metrics_url}")
        seconds = []
        with Client(server.grpc_url) as client:
            for _ in range(CALLS):
                began = time.perf_counter()
                result = client.synthesize(labels, instances, seed=seeds)
                seconds.append(time.perf_counter() - began)
    encoding = read_encoding({})
    sheet = np.asarray(contact_sheet(labels, result.images, class_palette(config)))
    names = [*(f"{i}.png" for i in range(count)), "contact_sheet.png"]
    for name, file in zip(names, [*encode_images(result.images, encoding), *encode_images(sheet[None], encoding)],
                          strict=True):  # fmt: skip
        write_image(out / name, file)
    first, again = seconds[0] * 1e3, np.median(seconds[1:]) * 1e3
    yield f"{count} label maps in one batch over gRPC: {first:.0f} ms; the same maps again: {again:.0f} ms (median)"
    yield "the last call, in seconds:"
    for name, value in asdict(result.timings).items():
        yield f"  {name} {value:.4g}"
    yield f"{count} images and contact_sheet.png written to {out}"
