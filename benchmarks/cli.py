"""`spade bench`. `serving.cli.main` finds this group by the entry point in pyproject.toml."""

from __future__ import annotations

import click

from serving.cli.lazy_group import LazyGroup

COMMANDS = {
    "model": "benchmarks.model.command",
    "server": "benchmarks.load.command",
    "kernels": "benchmarks.cpu_kernels.command",
    "export": "benchmarks.model.exported",
}


@click.group(cls=LazyGroup, modules=COMMANDS, short_help="Measure latency on this machine.")
def bench() -> None:
    """Measure latency and throughput on your own weights, maps and machine.

    Each subcommand prints a table, says what disturbed the run, and writes JSON, Markdown or one HTML file with plots.
    """
