"""`spade convert`: published weights to a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from serving.cli.console import Command, say
from serving.cli.options import FILE, OUT_FILE
from spade_core.config import PRESETS


@click.command(cls=Command, short_help="Turn published weights into a checkpoint.")
@click.argument("generator", type=FILE, metavar="NET_G.pth")
@click.option("--encoder", type=FILE, help="The style encoder's file, latest_net_E.pth.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Architecture of the weights.  [default: found from their shapes]",
)
@click.option("--out", type=OUT_FILE, required=True, help="Checkpoint to write (.safetensors).")
def convert(generator: Path, encoder: Path | None, preset: str | None, out: Path) -> None:
    """Turn published SPADE weights (latest_net_G.pth) into a checkpoint.

    Nothing in the file is executed; spectral norm is folded into the weights.

    \b
    spade convert latest_net_G.pth --out coco.safetensors
    """
    from spade_core.files.convert import convert as run

    say(str(run(generator, encoder, out, config=None if preset is None else PRESETS[preset])))
