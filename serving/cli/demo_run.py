"""The main job, end to end: a server, a batch of label maps through gRPC, images and a contact sheet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from serving.client.client import Client
from serving.client.files import contact_sheet, write_image
from serving.progress import Progress
from serving.requests.images import encode_images, read_encoding
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions, serve, served_config
from spade_core.maps.colours import class_palette
from spade_core.maps.drawn import demo_map

CALLS = 5


def demo(model: ModelOptions, out: Path, count: int) -> Iterator[str]:
    """Run it, yielding a line for each thing done. Raises ServeError and ServerError with the server's reason."""
    config = served_config(model)
    drawn = [demo_map(seed, config) for seed in range(count)]
    labels = np.stack([d[0] for d in drawn])  # [count, H, W]
    instances = np.stack([d[1] for d in drawn]) if config.instance_edges else None
    seeds = np.arange(count) if config.style else None
    with (
        Progress() as progress,
        serve(ServeOptions(model, http_port=0, grpc_port=0, metrics_port=0), progress.report) as server,
    ):
        progress.done(f"Triton is ready at {server.grpc_url}, metrics at {server.metrics_url}")
        seconds = []
        with Client(server.grpc_url) as client:
            for _ in range(CALLS):
                began = time.perf_counter()
                result = client.synthesize(labels, instances, seed=seeds)
                seconds.append(time.perf_counter() - began)
    for i, image in enumerate(encode_images(result.images, read_encoding({}))):
        write_image(out / f"{i}.png", image)
    sheet = contact_sheet(labels, result.images, class_palette(config))
    write_image(out / "contact_sheet.png", encode_images(np.asarray(sheet)[None], read_encoding({}))[0])
    first, again = seconds[0] * 1e3, np.median(seconds[1:]) * 1e3
    yield f"{count} label maps in one batch over gRPC: {first:.0f} ms; the same maps again: {again:.0f} ms (median)"
    yield "the last call, in seconds:"
    for name, value in asdict(result.timings).items():
        yield f"  {name} {value:.4g}"
    yield f"{count} images and contact_sheet.png written to {out}"
