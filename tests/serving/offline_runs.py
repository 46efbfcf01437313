"""Shared by the tests of offline runs: a tiny model with a style input, maps for it, and what a folder holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image
from served import TINY, blocks

from serving.engines.choose import choose
from serving.offline.painter import Setting
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator

STYLED = replace(TINY, instance_edges=False, style=True)


def setting_of(folder: Path) -> Setting:
    """Weights in `folder`, and an engine of one thread in float32."""
    weights = folder / "styled.safetensors"
    save(weights, seeded_generator(STYLED))
    return Setting(weights, "demo", choose("auto", "fp32"), 1, None, "png", folder)


def make_maps(folder: Path, count: int) -> None:
    """Label maps of 64x64 pixels, map0.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        Image.fromarray(blocks(seed, size=64, classes=8)[0]).save(folder / f"map{seed}.png")


def drawn(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
