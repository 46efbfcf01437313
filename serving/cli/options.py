"""Groups of options that several subcommands share. Each group reaches its command as one frozen dataclass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from serving.engines.names import ENGINES, PRECISIONS
from spade_core.config import DEMO_WEIGHTS, PRESETS

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)  # a file to read
OUT_FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)  # a folder to read
OUT_FOLDER = click.Path(file_okay=False, path_type=Path)


class _WholeNumber(click.IntRange):
    """A range that help shows without its upper end, which only keeps the number inside its integer type."""

    def _describe_range(self) -> str:
        return f"x>={self.min}"


class _Seconds(click.FloatRange):
    """Seconds above 0, at most a year; NaN, which passes every comparison, is refused too."""

    def __init__(self) -> None:
        super().__init__(0, 365 * 86400, min_open=True)

    def _describe_range(self) -> str:
        return "x>0"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


SECONDS = _Seconds()
SEED = _WholeNumber(0, 2**63 - 1)
COUNT = _WholeNumber(1, 2**31 - 1)
BATCH = _WholeNumber(1, 1024)
THREADS = _WholeNumber(1, 1024)
LOOKS = ("flat", "lit")  # as `trainer.scenes.scene`, which --help does not import
LAYOUTS = ("folder", "coco", "ade20k", "cityscapes")  # as `trainer.data.layouts`, which --help does not import

Function = Callable[..., Any]


def option(*names: str, **attributes: Any) -> Any:
    """A dataclass field that is an option of a command. Takes the arguments of `click.option`."""
    return field(metadata={"names": names, "attributes": attributes})


def options(group: type[Any], parameter: str) -> Callable[[Function], Function]:
    """Add the options of the dataclass `group` to a command, which gets them as one argument named `parameter`."""

    def decorate(command: Function) -> Function:
        @wraps(command)
        def collected(*arguments: Any, **values: Any) -> Any:
            chosen = {one.name: values.pop(_parameter(one.metadata["names"])) for one in fields(group)}
            return command(*arguments, **{parameter: group(**chosen)}, **values)

        decorated: Function = collected
        for one in reversed(fields(group)):
            names = one.metadata["names"]
            decorated = click.option(_parameter(names), *names, **one.metadata["attributes"])(decorated)
        return decorated

    return decorate


def given(context: click.Context, *groups: type[Any], leave_out: tuple[str, ...] = ()) -> list[str]:
    """The options of `groups` that the user gave, on the command line or in the environment, as `--name`s."""
    names = {_parameter(one.metadata["names"]) for group in groups for one in fields(group)} - set(leave_out)
    default = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) not in default
    ]


def _parameter(names: tuple[str, ...]) -> str:
    """Click's name of an option, which is also the end of its environment variable: `--log-file` -> `log_file`."""
    long = next(name for name in names if name.startswith("--"))
    return long.partition("/")[0].removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class Weights:
    """`--weights` and `--preset`. Without either, the command runs the demo model."""

    weights: Path | None = option(
        "--weights", type=FILE, help="Checkpoint (.safetensors) made by `spade convert` or by training."
    )
    preset: str | None = option(
        "--preset", type=click.Choice(list(PRESETS)),
        help="Run this architecture on seeded, untrained weights.  [default: the trained demo model that ships]",
    )  # fmt: skip

    def __post_init__(self) -> None:
        refuse_both(self.weights, self.preset)

    @property
    def file(self) -> Path | None:
        """The checkpoint, or None for the preset's seeded weights."""
        return DEMO_WEIGHTS if self.weights is None and self.preset is None else self.weights

    @property
    def architecture(self) -> str:
        """The preset of seeded weights. A checkpoint carries its own architecture."""
        return self.preset or "demo"


def refuse_both(weights: Path | None, preset: str | None) -> None:
    """Raises UsageError where both a checkpoint and a preset are given."""
    if weights is not None and preset is not None:
        raise click.UsageError("--preset: a checkpoint has its own architecture; give the checkpoint or --preset")


@dataclass(frozen=True)
class Running(Weights):
    """The model, and how this machine runs the model."""

    engine: str = option(
        "--engine", type=click.Choice(ENGINES), default="auto", show_default=True,
        help="Engine that computes. `auto` takes the best of this machine and says which.",
    )  # fmt: skip
    precision: str = option(
        "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True,
        help="Precision of weights and activations. `auto` takes the fastest of this machine within the error bound, "
        "bf16 or fp32, and says which. int8 (codebooks only) needs AMX; fp16 needs CUDA.",
    )  # fmt: skip
    threads: int | None = option("--threads", type=THREADS, help="Threads of the engine.  [default: one per core]")


@dataclass(frozen=True)
class Queue:
    """How a server batches and queues requests."""

    max_batch: int = option(
        "--max-batch", type=BATCH, default=8, show_default=True, help="Most label maps in one batch."
    )
    queue_delay_us: int = option(
        "--queue-delay-us", type=_WholeNumber(0, 10**9), default=2000, show_default=True,
        help="Microseconds that a batch waits for more requests before it is full.",
    )  # fmt: skip
    queue_size: int = option(
        "--queue-size", type=COUNT, default=128, show_default=True,
        help="Label maps that may wait; more are refused (503).",
    )  # fmt: skip
    queue_timeout_s: float = option(
        "--queue-timeout", type=SECONDS, default=30.0, show_default=True,
        help="Seconds a request may wait before it is refused (503).",
    )  # fmt: skip
    decoders: int = option(
        "--decoders", type=_WholeNumber(1, 256), default=2, show_default=True,
        help="Processes that decode and encode images.",
    )  # fmt: skip
    max_pixels: int = option(
        "--max-pixels", type=COUNT, default=1 << 20, show_default=True, help="Most pixels of one label map."
    )
    session_mib: int = option(
        "--session-mib", type=_WholeNumber(0, 1 << 20), default=1024, show_default=True,
        help="Memory for sessions, which draw what changed of a map, MiB; 0 draws every map anew.",
    )  # fmt: skip
