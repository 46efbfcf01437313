"""Errors as messages, and output that is not cut."""

from __future__ import annotations

import errno
import sys

import click
import pytest
from rich.table import Table

from serving.cli.console import errors_as_messages, progress_bar, say, stdout


@pytest.mark.parametrize("error", [ValueError("bad [value]"), OSError("bad [value]"), RuntimeError("bad [value]")])
def test_an_expected_error_is_a_message_and_status_1(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_as_messages("nothing"):
        raise error
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: bad [value]\n"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        ModuleNotFoundError("a bug", name="no_such_module"),
        click.UsageError("for click"),
        click.exceptions.Exit(3),
        BrokenPipeError(errno.EPIPE, "the reader has gone"),
    ],
)
def test_bugs_and_what_click_handles_pass(error: Exception) -> None:
    with pytest.raises(type(error)), errors_as_messages("nothing"):
        raise error


def test_a_missing_package_names_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), errors_as_messages("nothing"):
        raise ModuleNotFoundError("no", name="openvino")
    assert "expected the package openvino but it is not installed; run `pip install -e '.[export]'`" in (
        capsys.readouterr().err
    )


def test_ctrl_c_says_what_holds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os._exit", sys.exit)  # a thread of another test may still run in this process
    with pytest.raises(SystemExit) as ended, errors_as_messages("all is whole"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted: all is whole\n"


def test_lines_and_tables_are_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 500
    table = Table(long, box=None)
    table.add_row(long)
    stdout().print(table)
    say(f"{long} [red]")
    with progress_bar("work", 2) as advance:
        advance(2)
    captured = capsys.readouterr()
    assert captured.out.count(long) == 3
    assert "[red]" in captured.out
    assert captured.err == ""
