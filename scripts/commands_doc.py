"""Write docs/commands.md from the help of the commands. With --check, fail where the file differs."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

import click

from serving.cli.main import COMMANDS, PLUGINS
from serving.cli.main import main as spade

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "docs" / "commands.md"
HEAD = """# Commands

Written by `scripts/commands_doc.py` from the commands' own help.
Every option is also an environment variable: `spade serve --grpc-port` is `SPADE_SERVE_GRPC_PORT`.
"""


def text() -> str:
    sections = [section for name in COMMANDS for section in sections_of(f"spade {name}", subcommand(spade, name))]
    for name, target in plugins().items():
        module, function = target.split(":")
        sections += sections_of(f"spade {name}", getattr(importlib.import_module(module), function))
    return "\n".join([HEAD, *sections])


def plugins() -> dict[str, str]:
    """The commands of other packages, from pyproject.toml: an installation may be older than the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = project["entry-points"][PLUGINS]
    return found


def subcommand(group: click.Group, name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


def sections_of(name: str, command: click.Command) -> list[str]:
    """The help of a command and, where it is a group, of its subcommands."""
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    found = [f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for one in command.list_commands(context):
            found += sections_of(f"{name} {one}", subcommand(command, one))
    return found


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if DOC.read_text() != text():
            sys.exit(f"error: {DOC} differs from the commands' own help; run python scripts/commands_doc.py")
    else:
        DOC.write_text(text())


if __name__ == "__main__":
    main()
