"""`spade repository`: the versions of a model repository, shown or rolled back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.console import Command, note, say, stdout
from serving.cli.options import COUNT, FOLDER

if TYPE_CHECKING:
    from rich.table import Table

    from serving.triton.repository import Version


@click.command(cls=Command, interrupted="the live version is whole", short_help="Show or roll back published versions.")
@click.argument("root", type=FOLDER, metavar="REPOSITORY")
@click.option("--roll-back", is_flag=True, help="Make the newest good version before the live one live.")
@click.option("--version", type=COUNT, help="Make this version live.")
def repository(root: Path, roll_back: bool, version: int | None) -> None:
    """Show the versions of a model repository, verified against their hashes, or make an earlier one live.

    \b
    spade repository repo/
    spade repository repo/ --roll-back
    spade repository repo/ --version 3

    A running server of the repository loads the version before the old one goes; no request is lost.

    Exit status: 0 done, 1 a version is damaged or refused (the reason is shown), 2 wrong usage.
    """
    from serving.triton.repository import roll_back as run
    from serving.triton.repository import versions

    if roll_back or version is not None:
        say(f"{root}: version {run(root, version).number} is live")
        return
    found = versions(root)
    stdout().print(_table(found))
    faults = [one.fault for one in found if one.fault]
    faults += [
        f"[publish] a server refused version {one.number}: {one.refused}; `spade repository {root} --version "
        f"{one.number}` tries again" for one in found if one.refused
    ]  # fmt: skip
    for fault in faults:
        note(fault)
    if faults:
        sys.exit(1)


def _table(found: list[Version]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("version", "", "source", "precision", "state")
    for version in found:
        facts = version.facts
        table.add_row(
            str(version.number), "live" if version.live else "", escape(str(facts.get("source", ""))),
            escape(str(facts.get("precision", ""))),
            "DAMAGED" if version.fault else "REFUSED" if version.refused else "whole",
        )  # fmt: skip
    return table
