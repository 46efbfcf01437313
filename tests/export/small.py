"""Small presets and label maps that the export tests share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spade_core.config import GeneratorConfig, preset
from spade_core.models.style import style_from_seed

Array = npt.NDArray[Any]


def small(name: str, **changes: Any) -> GeneratorConfig:
    """A preset with the same classes, edges, upsampling and style, and few channels and pixels."""
    config = preset(name)
    least = 2**config.upsamplings
    size = {"height": least, "width": least * config.width // config.height}
    return replace(config, **({"nf": 2} | size | changes))


def some_maps(config: GeneratorConfig, batch: int, seed: int = 0) -> tuple[Array, Array | None, Array | None]:
    """Labels uint8 (with don't care if the preset has the class), instances int32 and style, of `batch` maps."""
    random = np.random.default_rng(seed)
    shape = (batch, config.height // 4, config.width // 4)
    labels = random.integers(0, config.label_nc, shape).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    if config.dont_care:
        labels[:, :3, :5] = 255
    instances = labels.astype(np.int32) // 2 if config.instance_edges else None
    style = np.stack([style_from_seed(seed + i) for i in range(batch)]) if config.style else None
    return labels, instances, style
