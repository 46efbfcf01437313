"""Every option of every `spade bench` command refuses what its type forbids, before anything is measured."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from benchmarks.cli import COMMANDS, bench
from serving.cli.main import main


def wrong_value(kind: click.ParamType) -> str | None:
    """A value that the type forbids; None for free text and flags."""
    if isinstance(kind, click.Path):
        return "no/such/path" if kind.exists else "/"
    if isinstance(kind, click.IntRange | click.FloatRange):
        return "-1"
    return "x" if isinstance(kind, click.Choice) else None


def cases() -> list[tuple[str, str, str]]:
    """(subcommand, option, wrong value)."""
    found = []
    for name in COMMANDS:
        command = bench.get_command(click.Context(bench), name)
        assert command is not None
        for option in command.params:
            value = wrong_value(option.type)
            if isinstance(option, click.Option) and value is not None:
                found.append((name, option.opts[0], value))
    return found


def test_a_wrong_value_is_wrong_usage() -> None:
    found = cases()
    assert {name for name, _, _ in found} == set(COMMANDS)
    assert len(found) > 40
    failed = []
    for name, option, value in found:
        positional = ["local"] if name == "server" else []
        done = CliRunner().invoke(main, ["bench", name, *positional, f"{option}={value}"])
        if done.exit_code != 2 or f"Error: Invalid value for '{option}'" not in done.output:
            failed.append((name, option, value, done.output))
    assert failed == []


@pytest.mark.parametrize(
    ("name", "option"),
    [("model", "--engines"), ("model", "--peers"), ("kernels", "--isas"), ("server", "--doors"), ("server", "--rates")],
)
def test_text_that_names_nothing_is_wrong_usage(name: str, option: str) -> None:
    positional = ["local"] if name == "server" else []
    done = CliRunner().invoke(main, ["bench", name, *positional, f"{option}=nobody,at all"])
    assert done.exit_code == 2
    assert "nobody" in done.output
