"""Scenes as files: labels/, images/ and instances/ of one name, and a sheet to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from spade_core.config import preset
from spade_core.maps.colours import class_palette
from spade_core.maps.sheet import contact_sheet
from trainer.scenes.scene import Scene, scene
from trainer.scenes.styles import SceneError

_SHEET_SCENES, _COLUMNS = 24, 6


def parse_size(text: str) -> tuple[int, int]:
    """`256` or `HEIGHTxWIDTH` -> (height, width). Raises SceneError."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isascii() and side.isdigit() for side in sides):
        raise SceneError(f"[scenes] expected a size like 256 or 256x512 (height x width) but got {text!r}")
    return int(sides[0]), int(sides[-1])


def write_scenes(
    out: Path, count: int, *, height: int, width: int, seed: int, style: str | None, look: str = "flat"
) -> Iterator[Scene]:
    """Write the scenes of seeds seed .. seed + count - 1, and a `contact_sheet.png` of the first 24; yield each scene.

    Label maps are grey PNGs of ids, instance maps 16-bit PNGs. Raises SceneError.
    """
    for name in ("labels", "images", "instances"):
        (out / name).mkdir(parents=True, exist_ok=True)
    shown: list[Scene] = []
    for at in range(seed, seed + count):
        one = scene(at, height=height, width=width, style=style, look=look)
        name = f"{at:06d}.png"
        Image.fromarray(one.labels).save(out / "labels" / name)
        Image.fromarray(one.instances.astype(np.uint16)).save(out / "instances" / name)
        Image.fromarray(one.image).save(out / "images" / name)
        if len(shown) < _SHEET_SCENES:
            shown.append(one)
        yield one
    _sheet(shown).save(out / "contact_sheet.png")


def _sheet(scenes: list[Scene]) -> Image.Image:
    labels, images = np.stack([one.labels for one in scenes]), np.stack([one.image for one in scenes])
    return contact_sheet(labels, images, class_palette(preset("demo")), _COLUMNS)
