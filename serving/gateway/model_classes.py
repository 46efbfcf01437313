"""The classes of the served model: names, colours, and scenes drawn in them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.constants import DONT_CARE
from serving.protocol import ModelInfo
from spade_core.config import PRESETS, GeneratorConfig, custom_preset
from spade_core.maps.colours import RGB, ColourTable, class_names
from spade_core.maps.drawn import SCENE_IDS


@lru_cache(maxsize=4)
def config_of(info: ModelInfo) -> GeneratorConfig:
    """A configuration with the classes and the size of the served model; widths and norms are not the model's."""
    own = info.class_names[: info.classes]
    base = PRESETS.get(info.preset)
    if base is None or class_names(base) != info.class_names:
        base = replace(custom_preset(own or tuple(f"class {i}" for i in range(info.classes))), preset=info.preset)
    return replace(
        base, dont_care=info.dont_care, instance_edges=info.instances, style=info.style, height=info.height,
        width=info.width, upsampling="normal",
    )  # fmt: skip


def classes(info: ModelInfo) -> list[dict[str, Any]]:
    """Every class: id in a label map file, name, and colour [r, g, b]."""
    ids = [*range(info.classes), *([DONT_CARE] if info.dont_care else [])]
    return [
        {"id": label, "name": name, "colour": list(colour)}
        for label, name, colour in zip(ids, info.class_names, info.class_colours, strict=True)
    ]


def colour_table(info: ModelInfo) -> ColourTable:
    """The table that reads label maps in RGB: the classes' colours. A colour of several classes is the first one's."""
    first: dict[RGB, dict[str, Any]] = {}
    for one in classes(info):
        red, green, blue = one["colour"]
        first.setdefault((red, green, blue), one)
    found = first.values()
    return ColourTable(tuple(one["id"] for one in found), tuple(first), tuple(one["name"] for one in found))


def blank(info: ModelInfo) -> npt.NDArray[np.uint8]:
    """A map [H, W] with nothing but a horizon: sky over grass, or the first two classes."""
    ids = _landscape(info)
    sky, ground = (ids[0], ids[6]) if ids else (0, min(1, info.classes - 1))
    labels = np.full((info.height, info.width), sky, np.uint8)
    labels[info.height * 5 // 9 :] = ground
    return labels


def first_brush(info: ModelInfo) -> int:
    """The class that the brush begins with: trees, or the last class."""
    ids = _landscape(info)
    return ids[7] if ids else info.classes - 1


def _landscape(info: ModelInfo) -> tuple[int, ...]:
    """The ids of sky, cloud, .. where the model has landscapes, as `SCENE_IDS` orders them; else none."""
    ids = SCENE_IDS.get(info.preset, ())
    return ids if ids and max(ids) < info.classes else ()
