"""Command-line options that several benchmarks have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import click

from spade_core.config import PRESETS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def preset_option(default: str, help: str = "Architecture.", names: Sequence[str] = tuple(PRESETS)) -> Decorator:
    """`--preset`, passed on as `preset_name`."""
    return click.option(
        "--preset", "preset_name", type=click.Choice(list(names)), default=default, show_default=True, help=help
    )


def weights_option(help: str = "Checkpoint; without it, seeded weights.") -> Decorator:
    """`--weights`, a file."""
    return click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=help)


def labels_option(kind: str = "label maps") -> Decorator:
    """`--labels`, a folder of maps of this kind."""
    help = f"Folder of {kind}, or one holding label/ and inst/. Without it, drawn maps."
    return click.option("--labels", type=click.Path(exists=True, file_okay=False, path_type=Path), help=help)


def json_option() -> Decorator:
    """`--json`, the report's file, passed on as `json_path`."""
    return click.option(
        "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file."
    )


def numbers(kind: type) -> Callable[[click.Context, click.Parameter, str], tuple[Any, ...]]:
    """A callback that reads positive numbers with commas between them."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[Any, ...]:
        try:
            found = tuple(kind(part) for part in value.split(",") if part)
        except ValueError as error:
            raise click.BadParameter(f"expected numbers with commas between but got {value!r}") from error
        if any(number <= 0 for number in found):
            raise click.BadParameter(f"expected numbers above 0 but got {value!r}")
        return found

    return read


def names_of(known: Collection[str]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """A callback that reads names out of `known` with commas between them, one or more."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(name for name in value.split(",") if name)
        if not names or set(names) - set(known):
            raise click.BadParameter(f"expected names out of {', '.join(known)} but got {value!r}")
        return names

    return read
