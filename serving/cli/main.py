"""The `spade` command."""

from __future__ import annotations

import logging

import click

from serving.cli.lazy_group import LazyGroup

# Each name is also the name of the subcommand's module and of the function in the module.
COMMANDS = (
    "synthesize", "serve", "studio", "key", "convert", "info", "demo", "export", "repository", "train", "scenes",
    "evaluate", "check",
)  # fmt: skip

PLUGINS = "spade.commands"  # entry points of subcommands in packages above this one: `spade bench`


@click.group(
    cls=LazyGroup, modules={name: f"serving.cli.{name}" for name in COMMANDS}, plugins=PLUGINS,
    context_settings={"auto_envvar_prefix": "SPADE", "help_option_names": ["-h", "--help"]},
)  # fmt: skip
@click.version_option(package_name="spade-serve")
@click.option("-v", "--verbose", is_flag=True, help="Log what is chosen and why.")
def main(verbose: bool) -> None:
    """SPADE Serve: label maps in, images out.

    Every option is also an environment variable: `spade serve --grpc-port` is SPADE_SERVE_GRPC_PORT.
    """
    from serving.cli.console import log_handler

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[log_handler()], force=True)
