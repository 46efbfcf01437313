"""Errors as messages, and output that is not cut."""

from __future__ import annotations

import errno
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.table import Table

from serving.cli.console import errors_as_messages, interruptible, log_handler, progress_bar, say, stdout
from serving.cli.main import main


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


def test_work_that_can_be_interrupted_gives_its_result_and_its_error() -> None:
    assert interruptible(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)


def test_ctrl_c_ends_a_command_whose_native_code_computes() -> None:
    code = (
        "import ctypes\nfrom serving.cli.console import errors_as_messages, interruptible\n"
        "def work():\n    print('working', flush=True)\n"
        "    ctypes.CDLL(None).usleep(60_000_000)\n"
        "with errors_as_messages('all is whole'):\n    interruptible(work)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == "working\n"
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert p.communicate(timeout=60)[1] == "interrupted: all is whole\n"
    assert p.returncode == 130
    assert time.monotonic() - began < 5  # a second on an idle machine


@pytest.mark.parametrize(
    ("command", "work"),
    [("export --out o", "export.pipeline.export_onnx"), ("evaluate --count 1", "trainer.evaluation.evaluate.evaluate")],
)
def test_long_work_leaves_the_main_thread_to_ctrl_c(
    command: str, work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def where(*_arguments: object, **_named: object) -> None:
        raise ValueError(f"on the main thread: {threading.current_thread() is threading.main_thread()}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, where)
    assert "on the main thread: False" in CliRunner().invoke(main, command.split()).output


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


def test_a_log_line_that_goes_to_no_terminal_is_as_long_as_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    log_handler().handle(logging.LogRecord("any", logging.WARNING, __file__, 1, "no %s", ("weights",), None))
    assert capsys.readouterr().err == "WARNING no weights\n"
