"""Groups of options as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from serving.cli.options import SECONDS, Weights, given, option, options
from spade_core.config import DEMO_WEIGHTS


@dataclass(frozen=True)
class Size:
    """A group of two options; `how_wide` has another name than its option."""

    how_wide: int = option("--out-width", type=int, default=3, help="Width.")
    deep: bool = option("--deep/--flat", default=False, help="Depth.")


@dataclass(frozen=True)
class Wait:
    """A group of one option."""

    seconds: float = option("--seconds", type=SECONDS, default=1.0, help="Seconds.")


@click.command(context_settings={"auto_envvar_prefix": "T"})
@options(Size, "size")
@options(Wait, "wait")
@click.option("--last", is_flag=True)
@click.pass_context
def command(context: click.Context, size: Size, wait: Wait, last: bool) -> None:
    click.echo(f"{size} {wait} {last} {given(context, Size)} {given(context, Size, Wait, leave_out=('deep',))}")


def output(*arguments: str, environment: dict[str, str] | None = None) -> str:
    return CliRunner().invoke(command, arguments, env=environment).output


def test_each_group_reaches_the_command_as_its_dataclass() -> None:
    expected = "Size(how_wide=3, deep=False) Wait(seconds=1.0) False [] []\n"
    assert output() == expected
    given_two = "Size(how_wide=4, deep=True) Wait(seconds=1.0) False ['--out-width', '--deep'] ['--out-width']\n"
    assert output("--out-width=4", "--deep") == given_two


def test_the_environment_counts_as_given() -> None:
    assert output(environment={"T_OUT_WIDTH": "5"}).startswith("Size(how_wide=5,")
    assert "['--out-width'] ['--out-width']" in output(environment={"T_OUT_WIDTH": "5"})


def test_help_shows_the_options_in_the_order_of_the_code() -> None:
    text = output("--help")
    positions = [text.index(name) for name in ("--out-width", "--deep", "--seconds", "--last")]
    assert positions == sorted(positions)


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_seconds_are_finite_and_above_0(value: str) -> None:
    result = CliRunner().invoke(command, [f"--seconds={value}"])
    assert result.exit_code == 2
    assert "Invalid value for '--seconds'" in result.output


def test_without_weights_and_preset_it_is_the_demo_model() -> None:
    assert Weights(None, None).file == DEMO_WEIGHTS
    assert (Weights(None, "coco").file, Weights(None, "coco").architecture) == (None, "coco")
    with pytest.raises(click.UsageError, match="a checkpoint has its own architecture"):
        Weights(Path("w"), "coco")
