"""Named styles of a model of scenes: the mean style of scenes at noon, at night, in winter, and so on.

Training writes them into the weights it exports. `python -m trainer.output.scene_styles FILE` adds them to a checkpoint
that has none; its tensors stay as they are.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import click
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from spade_core.files.checkpoints import load_any
from spade_core.files.whole_file import write_whole
from spade_core.models.encoder import StyleEncoder
from spade_core.models.style import STYLES, styles_text
from spade_core.types import Style
from trainer.scenes.scene import scene
from trainer.scenes.styles import STYLES as SCENE_STYLES

FIRST_SCENE = 900_000  # neither trained on nor evaluated
SCENES = 24


@lru_cache(maxsize=64)  # training writes weights often, each time with the styles of the same few scenes
def _image(seed: int, height: int, width: int, name: str, look: str) -> Tensor:
    """A scene in a style, uint8 [3, H, W]."""
    image = scene(seed, height=height, width=width, style=name, look=look).image
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


@torch.no_grad()
def scene_styles(
    encoder: StyleEncoder, height: int, width: int, count: int = SCENES, look: str = "flat"
) -> dict[str, Style]:
    """The mean over `count` scenes of each style of the encoder's mean, float32 [256], by the style's name."""
    device = next(encoder.parameters()).device
    found: dict[str, Style] = {}
    for name in SCENE_STYLES:
        means = []
        for seed in range(FIRST_SCENE, FIRST_SCENE + count):
            image = _image(seed, height, width, name, look)
            mean, _ = encoder(image[None].to(device).float() / 127.5 - 1)
            means.append(mean[0].float().cpu().numpy())
        found[name] = np.asarray(np.mean(means, axis=0), np.float32)
    return found


def add_styles(path: Path, count: int = SCENES) -> list[str]:
    """Add the named styles to a checkpoint of scenes with a style encoder; returns their names. Raises ValueError."""
    generator, encoder, metadata = load_any(path)
    if encoder is None:
        raise ValueError(f"[styles] expected weights with a style encoder but got '{path}' without one")
    size = generator.config.height, generator.config.width
    styles = scene_styles(encoder, *size, count, metadata.get("look", "flat"))
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
    header[STYLES] = styles_text(styles)
    tensors = load_file(path)
    write_whole(path, lambda draft: save_file(tensors, draft, header))
    return list(styles)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scenes", type=click.IntRange(1), default=SCENES, show_default=True, help="Scenes of each style.")
def main(file: Path, scenes: int) -> None:
    """Add named styles to the checkpoint FILE."""
    torch.set_num_threads(1)  # the encoder is small
    click.echo(f"{file}: {', '.join(add_styles(file, scenes))}")


if __name__ == "__main__":
    main()
