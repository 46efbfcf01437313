"""Where benchmarks print their tables."""

from __future__ import annotations

import sys

from rich.console import Console

_PIPED_COLUMNS = 160  # rich would cut tables to 80


def console() -> Console:
    """Standard output: as wide as the terminal, and wide enough for every table in a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS)
