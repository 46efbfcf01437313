"""`spade info`: what a checkpoint holds and costs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.console import Command, say, stdout
from serving.cli.options import FILE, refuse_both
from spade_core.config import ARCHITECTURES, DEMO_WEIGHTS, PRESETS

if TYPE_CHECKING:
    from rich.table import Table

    from spade_core.config import GeneratorConfig


@click.command(cls=Command, short_help="Show what a checkpoint holds and costs.")
@click.argument("weights", type=FILE, required=False)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Show a preset's architecture instead of a file's.")
@click.option("--baselines", is_flag=True, help="Show the paper's baselines and ablations of it in one table.")
def info(weights: Path | None, preset: str | None, baselines: bool) -> None:
    """Show what a checkpoint holds and what it costs: architecture, parameters, multiply-adds, origin.

    Without WEIGHTS and --preset, the checkpoint is the demo model.

    \b
    spade info coco.safetensors
    spade info --preset coco --baselines
    """
    refuse_both(weights, preset)
    from rich.table import Table

    from spade_core.files.weights import info as read_info

    table = Table(show_header=False, box=None)
    if preset is not None:
        config, metadata = PRESETS[preset], {}
    else:
        path = weights or DEMO_WEIGHTS
        header = read_info(path)
        config, metadata = header.config, header.metadata
        encoder = f"{header.encoder_parameters / 1e6:.2f} M" if header.encoder_parameters else "no"
        table.add_row("file", f"{path}, {path.stat().st_size / 1e6:.1f} MB")
        table.add_row("sha256", hashlib.sha256(path.read_bytes()).hexdigest())
        table.add_row("weights", header.dtype)
        if ARCHITECTURES[config.architecture].one_hot:
            table.add_row("parameters", f"{header.generator_parameters / 1e6:.2f} M")
        table.add_row("style encoder", encoder)
    if baselines:
        say(f"of '{config.preset}', {config.height}x{config.width}")
        stdout().print(_baselines_table(config))
        return
    _add_architecture(table, config)
    for name, value in metadata.items():
        table.add_row(name, _shown(name, value))
    stdout().print(table)


def _shown(name: str, value: str) -> str:
    """A metadata field as text for a reader: colours and styles are many numbers."""
    from spade_core.maps.colours import PALETTE
    from spade_core.models.style import STYLES, read_styles

    if name == STYLES:
        return ", ".join(read_styles(value))
    return "own colours" if name == PALETTE else value


def _add_architecture(table: Table, config: GeneratorConfig) -> None:
    from rich.markup import escape

    from spade_core.maps.colours import CLASSES, class_names
    from spade_core.pytorch import has_torch

    for name, value in config.to_dict().items():
        if name != "class_names":
            table.add_row(name, str(value))
    names = class_names(config)
    if config.class_names or config.preset in CLASSES:
        table.add_row("classes", escape(", ".join(f"{i} {name}" for i, name in enumerate(names))))
    table.add_row("semantic_nc", str(config.semantic_nc))
    if ARCHITECTURES[config.architecture].one_hot:  # only the weights tell its widths
        return
    if not has_torch():
        table.add_row("costs", "not counted, since PyTorch is not installed")
        return
    from spade_core.models.costs import dense_macs, parameters

    table.add_row("parameters", f"{parameters(config) / 1e6:.2f} M")
    table.add_row("dense form", f"{dense_macs(config) / 1e9:.1f} GMAC an image")


def _baselines_table(config: GeneratorConfig) -> Table:
    from rich.table import Table

    from spade_core.models.costs import baseline_costs
    from spade_core.models.registry import ABLATIONS

    table = Table("generator", "configuration", box=None)
    table.add_column("parameters, M", justify="right")
    table.add_column("dense form, GMAC", justify="right")
    for name, params, macs in baseline_costs(config):
        change = ", ".join(f"{field} {value}" for field, value in ABLATIONS[name].items())
        table.add_row(name, change, f"{params / 1e6:.2f}", f"{macs / 1e9:.1f}")
    return table
