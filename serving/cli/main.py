"""The `spade` command: a group that imports a subcommand only when somebody asks for the subcommand."""

from __future__ import annotations

import importlib
import logging

import click

# Each name is also the name of the subcommand's module and of the function in the module.
COMMANDS = (
    "synthesize", "serve", "convert", "info", "demo", "export", "repository", "train", "scenes", "evaluate", "check",
)  # fmt: skip


class _LazyGroup(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"serving.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"auto_envvar_prefix": "SPADE", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="spade-serve")
@click.option("-v", "--verbose", is_flag=True, help="Log what is chosen and why.")
def main(verbose: bool) -> None:
    """SPADE Serve: label maps in, images out.

    Every option is also an environment variable: `spade serve --grpc-port` is SPADE_SERVE_GRPC_PORT.
    """
    from serving.cli.console import log_handler

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[log_handler()], force=True)
