"""The options that say which model a command runs and how, the same on every command that has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from serving.engines.names import ENGINES, PRECISIONS
from spade_core.config import DEMO_WEIGHTS, PRESETS

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def weights_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--weights` and `--preset`. Without either, the command gets the weights of the demo model."""

    @wraps(command)
    def with_weights(*args: Any, weights: Path | None, preset: str | None, **rest: Any) -> Any:
        if weights is not None and preset is not None:
            raise click.UsageError("--preset: a checkpoint has its own architecture; give --weights or --preset")
        if weights is None and preset is None:
            weights = DEMO_WEIGHTS
        return command(*args, weights=weights, preset=preset or "demo", **rest)

    return _decorated(
        with_weights,
        click.option("--weights", type=FILE, help="Checkpoint (.safetensors) made by `spade convert` or by training."),
        click.option(
            "--preset",
            type=click.Choice(list(PRESETS)),
            help="Run this architecture on seeded, untrained weights.  [default: the trained demo model that ships]",
        ),
    )


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`weights_options`, and how the model runs."""
    running = _decorated(
        command,
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default="auto",
            show_default=True,
            help="What computes; `auto` takes the best this machine has and says which.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="auto",
            show_default=True,
            help="Of weights and activations; `auto` takes the fastest this machine has within the error bound, bf16 "
            "or fp32, and says which. int8, in which only codebooks multiply, needs AMX; fp16 needs CUDA.",
        ),
        click.option("--threads", type=click.IntRange(1), help="Threads of the engine.  [default: one per core]"),
    )
    return weights_options(running)


QUEUE = ("max_batch", "queue_delay_us", "queue_size", "queue_timeout", "decoders", "max_pixels")


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How requests are batched and queued: the command gets them as `queue`, arguments of `ModelOptions`."""

    @wraps(command)
    def with_queue(*args: Any, **rest: Any) -> Any:
        queue = {name: rest.pop(name) for name in QUEUE}
        queue["queue_timeout_s"] = queue.pop("queue_timeout")
        return command(*args, queue=queue, **rest)

    return _decorated(
        with_queue,
        click.option(
            "--max-batch", type=click.IntRange(1), default=8, show_default=True, help="Most label maps in one batch."
        ),
        click.option(
            "--queue-delay-us",
            type=click.IntRange(0),
            default=2000,
            show_default=True,
            help="How long a batch that is not full waits for more.",
        ),
        click.option(
            "--queue-size",
            type=click.IntRange(1),
            default=128,
            show_default=True,
            help="Requests that may wait; more are refused (503).",
        ),
        click.option(
            "--queue-timeout",
            type=click.FloatRange(0, min_open=True),
            default=30.0,
            show_default=True,
            help="Seconds a request may wait before it is refused (503).",
        ),
        click.option(
            "--decoders",
            type=click.IntRange(1),
            default=2,
            show_default=True,
            help="Processes that decode and encode images.",
        ),
        click.option(
            "--max-pixels",
            type=click.IntRange(1),
            default=1 << 20,
            show_default=True,
            help="Most pixels of one label map.",
        ),
    )


def given(context: click.Context, names: tuple[str, ...]) -> list[str]:
    """Those of the parameters `names` that the user gave, as options: on the command line or in the environment."""
    default = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) not in default
    ]


def _decorated(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
