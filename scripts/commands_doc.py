"""Write docs/commands.md from the help of the commands. With --check, fail where the file differs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from serving.cli.main import COMMANDS
from serving.cli.main import main as spade

DOC = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
HEAD = """# Commands

Written by `scripts/commands_doc.py` from the commands' own help.
Every option is also an environment variable: `spade serve --grpc-port` is `SPADE_SERVE_GRPC_PORT`.
"""


def text() -> str:
    parts = [HEAD]
    group = click.Context(spade)
    for name in COMMANDS:
        command = spade.get_command(group, name)
        assert command is not None
        context = click.Context(command, info_name=f"spade {name}", terminal_width=100, max_content_width=100)
        parts.append(f"## spade {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if DOC.read_text() != text():
            sys.exit(f"error: {DOC} differs from the commands' own help; run python scripts/commands_doc.py")
    else:
        DOC.write_text(text())


if __name__ == "__main__":
    main()
