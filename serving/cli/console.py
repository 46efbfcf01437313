"""What every subcommand shares on the terminal: lines, tables, progress bars, and errors as messages."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

T = TypeVar("T")

_UNCUT = 10_000  # columns of an output that is no terminal, so that no table is cut or wrapped
INTERRUPTED = 130  # exit status after Ctrl-C, as in a shell

# package: the extra of pyproject.toml that installs it
_EXTRAS = {
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "openvino": "export",
    "matplotlib": "bench",
    "psutil": "bench",
    "aiohttp": "bench",
    "tensorboard": "train",
    "torchmetrics": "train",
    "pycuda": "gpu",
    "torch": "torch",
    "ray": "ray",
    "pyarrow": "ray",
}


def stdout() -> Console:
    """The console for results."""
    return _console(sys.stdout)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, width=None if stream.isatty() else _UNCUT)


def say(text: str) -> None:
    """A line of the result, as it is: no markup, no wrapping."""
    stdout().print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A line on standard error."""
    stderr().print(text, markup=False, soft_wrap=True)


def log_handler() -> logging.Handler:
    """Log lines on standard error: coloured and wrapped on a terminal, one plain line each elsewhere."""
    console = stderr()
    if not console.is_terminal:  # rich fills a line up to the console's width
        plain = logging.StreamHandler()
        plain.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        return plain
    from rich.logging import RichHandler

    handler = RichHandler(console=console, show_time=False, show_path=False)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def bars(*more: ProgressColumn, transient: bool = True) -> Progress:
    """Progress bars on standard error, shown on a terminal only. `more` columns come last."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more)
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """One progress bar with the time left. Yields the function that advances the bar by a number."""
    from rich.progress import TimeRemainingColumn

    with bars(TimeRemainingColumn()) as shown:
        task = shown.add_task(what, total=total)
        yield lambda done: shown.advance(task, done)


class Command(click.Command):
    """A subcommand whose expected errors end it with a message.

    Args:
        interrupted: what holds after Ctrl-C, for the message.
    """

    def __init__(self, *arguments: Any, interrupted: str = "nothing was written", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.interrupted = interrupted

    def invoke(self, context: click.Context) -> Any:
        with errors_as_messages(self.interrupted):
            return super().invoke(context)


@contextlib.contextmanager
def errors_as_messages(interrupted: str) -> Iterator[None]:
    """End the process with a message and status 1 after an expected error, 130 after Ctrl-C. Bugs keep their traceback.

    Expected errors are ValueError, OSError, RuntimeError and ImportError: modules of the project raise these with a
    text for users. Errors of usage pass: click shows them and ends with status 2.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "")
        if extra is None:
            raise
        _fail(
            f"expected the package {error.name} but it is not installed; run `pip install -e '.[{extra}]'` in the "
            "checkout of SPADE Serve"
        )
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe has gone: click ends quietly
            raise
        _fail(str(error))
    except (ValueError, RuntimeError, ImportError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        note(f"interrupted: {interrupted}")
        _leave(INTERRUPTED)


def interruptible(work: Callable[[], T]) -> T:
    """Run `work` on a thread of its own, so that Ctrl-C ends the command while native code computes."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result()
    finally:
        pool.shutdown(wait=False)


def _fail(text: str) -> None:
    note(f"error: {text}")
    sys.exit(1)


def _leave(status: int) -> None:
    """End at once. A thread that computes or waits for a server would otherwise hold the process for long."""
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if others:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
