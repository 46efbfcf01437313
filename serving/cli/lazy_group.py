"""A group of commands that imports a subcommand only when somebody asks for the subcommand."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose subcommands lie in a module each.

    Args:
        modules: the module of each subcommand, in which a function has the subcommand's name.
        plugins: group of entry points that adds subcommands of other packages, which may not be imported from here.
    """

    def __init__(self, *arguments: Any, modules: Mapping[str, str], plugins: str = "", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._modules, self._plugins = modules, plugins

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted({*self._modules, *self._entry_points})

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name in self._modules:
            command = getattr(importlib.import_module(self._modules[name]), name)
        elif name in self._entry_points:
            command = self._entry_points[name].load()
        else:
            return None
        assert isinstance(command, click.Command)
        return command

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        """Read only for `--help` and for names that are not this package's: the search takes some milliseconds."""
        return {one.name: one for one in entry_points(group=self._plugins)} if self._plugins else {}
