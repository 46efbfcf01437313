"""The server that is measured: one that runs at some address, or one that is started here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from benchmarks.load.doors import DOORS, Door, door
from serving.client import Client
from serving.protocol import ModelInfo
from serving.triton.model_config import ModelOptions
from serving.triton.served_facts import served_config
from serving.triton.server import ServeOptions, serve
from spade_core.config import CUSTOM, PRESETS, GeneratorConfig

LOCAL = "local"
_OF_SCHEME = {"grpc": ("grpc",), "http": ("http", "rest")}


@dataclass(frozen=True)
class Target:
    """A running server: its doors, and the configuration of its model as far as label maps depend on it."""

    doors: tuple[Door, ...]
    config: GeneratorConfig


def doors_at(urls: Sequence[str], wanted: Sequence[str]) -> tuple[Door, ...]:
    """The wanted doors at these addresses, `grpc://HOST:PORT` or `http://HOST:PORT`. Raises ValueError."""
    found = []
    for url in urls:
        scheme = urlsplit(url).scheme
        if scheme not in _OF_SCHEME or not urlsplit(url).hostname:
            raise ValueError(
                f"[bench] expected a server as grpc://HOST:PORT or http://HOST:PORT, or local, but got {url!r}"
            )
        found += [door(name, url) for name in _OF_SCHEME[scheme] if name in wanted]
    if not found:
        raise ValueError(f"[bench] expected addresses for the doors {', '.join(wanted)} but got {', '.join(urls)}")
    return tuple(found)


def running(urls: Sequence[str], wanted: Sequence[str] = DOORS) -> Target:
    """A server that runs already; it is asked for its model. Raises ValueError, ServerError."""
    doors = doors_at(urls, wanted)
    with Client(doors[0].url, timeout_s=60.0) as client:
        return Target(doors, config_of(client.info()))


def config_of(info: ModelInfo) -> GeneratorConfig:
    """The configuration of a model as far as its label maps depend on it."""
    preset = info.preset if info.preset in PRESETS else CUSTOM
    return replace(
        PRESETS["demo"], preset=preset, label_nc=info.classes, dont_care=info.dont_care, instance_edges=info.instances,
        height=info.height, width=info.width, style=info.style,
    )  # fmt: skip


@contextlib.contextmanager
def started(model: ModelOptions, wanted: Sequence[str], direct: bool) -> Iterator[Target]:
    """A server of this machine on free ports, as `spade serve` starts it; `direct` leaves the gateway out."""
    options = ServeOptions(model, http_port=0, grpc_port=0, metrics_port=0)
    if direct:
        wanted = [name for name in wanted if name != "rest"]
        with serve(options) as server:
            yield Target(doors_at([server.grpc_url, server.http_url], wanted), served_config(model))
        return
    from serving.gateway.pair import serve_pair

    with serve_pair(options) as pair:
        yield Target(doors_at([pair.grpc_url, pair.http_url], wanted), served_config(model))
