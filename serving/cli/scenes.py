"""`spade scenes`: drawn landscapes to play with."""

from __future__ import annotations

from pathlib import Path

import click

from serving.cli.console import Command, progress_bar, say
from serving.cli.options import COUNT, LOOKS, OUT_FOLDER, SEED


@click.command(
    cls=Command, interrupted="the scenes written so far are whole", short_help="Draw landscapes to play with."
)
@click.option("--count", type=COUNT, default=16, show_default=True, help="Number of scenes.")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder to write.")
@click.option("--size", default="256", show_default=True, metavar="SIZE", help="Pixels: a side, or HEIGHTxWIDTH.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the first scene.")
@click.option("--style", help="Style such as noon, sunset, night or winter.  [default: drawn from the seed]")
@click.option(
    "--look",
    type=click.Choice(LOOKS),
    default="flat",
    show_default=True,
    help="How they are drawn; lit is slower, and better.",
)
def scenes(count: int, out: Path, size: str, seed: int, style: str | None, look: str) -> None:
    """Draw landscapes to play with: label maps, images, and a sheet of both.

    The folder is one that `spade train` (layout `folder`) and `spade synthesize` read. Seeds below a million are never
    trained on.

    \b
    spade scenes --count 16 --out out/scenes
    spade synthesize out/scenes/labels --out out/images
    """
    from trainer.scenes.files import parse_size, write_scenes

    height, width = parse_size(size)
    with progress_bar("scenes", count) as advance:
        for _ in write_scenes(out, count, height=height, width=width, seed=seed, style=style, look=look):
            advance(1)
    say(f"{count} scenes and {out / 'contact_sheet.png'} written")
