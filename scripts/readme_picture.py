"""Make docs/assets/pair.jpg, the picture of README.md: one label map, its image, and the map in four more styles.

    .venv/bin/python scripts/readme_picture.py

The label map is a drawn scene and the images come from the demo model that ships, in float32, so another run of the
script makes the same picture.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from spade_core.config import preset
from spade_core.maps.colours import class_palette, draw
from spade_core.maps.label_maps import read_label_map

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "assets" / "pair.jpg"
SCENE = 14
SEED, MORE_SEEDS = 9, (5, 12, 4, 3)
SIDE, GAP = 448, 8  # pixels


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder, "scenes")
        spade("scenes", "--seed", SCENE, "--count", 1, "--size", 128, "--out", scenes)
        labels = scenes / "labels" / f"{SCENE:06d}.png"
        images = []
        for seed in (SEED, *MORE_SEEDS):
            out = Path(folder, str(seed))
            spade("synthesize", "--labels", labels, "--precision", "fp32", "--seed", seed, "--out", out)
            images.append(Image.open(out / labels.name).convert("RGB"))
        label_map = Image.fromarray(draw(read_label_map(labels), class_palette(preset("demo"))))
    PICTURE.parent.mkdir(exist_ok=True)
    arranged(label_map, images).save(PICTURE, quality=90)


def arranged(label_map: Image.Image, images: list[Image.Image]) -> Image.Image:
    """The label map, the first image beside it at the same size, and the other four in a block of two by two."""
    half = (SIDE - GAP) // 2
    picture = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE), "white")
    picture.paste(label_map.resize((SIDE, SIDE), Image.Resampling.NEAREST), (0, 0))
    picture.paste(images[0].resize((SIDE, SIDE), Image.Resampling.BICUBIC), (SIDE + GAP, 0))
    for i, image in enumerate(images[1:]):
        left, top = 2 * (SIDE + GAP) + i % 2 * (half + GAP), i // 2 * (half + GAP)
        picture.paste(image.resize((half, half), Image.Resampling.BICUBIC), (left, top))
    return picture


def spade(*arguments: object) -> None:
    command = [sys.executable, "-m", "serving.cli", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
