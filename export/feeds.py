"""The inputs of the two graphs, by name, made from label maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.ops.plan import Level
from spade_core.codebook.plans import plan_levels
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import prepare
from spade_core.models.style import check_style
from spade_core.types import Array

Feed = dict[str, npt.NDArray[Any]]


def dense_feed(labels: Array, instances: Array | None, style: Array | None, config: GeneratorConfig) -> Feed:
    """Inputs of the dense graph: labels uint8 [N, H, W], instances int32 [N, H, W], style [N, 256]. Raises ValueError.

    Checks every input, since the graph checks nothing.
    """
    prepare(labels, instances, config)
    return graph_inputs(labels, instances, check_style(style, len(labels), config))


def graph_inputs(labels: Array, instances: Array | None, style: Array | None) -> Feed:
    """Checked inputs of the dense graph by name, without the inputs that the model does not have."""
    feed = {"labels": labels, "instances": instances, "style": style}
    return {name: np.ascontiguousarray(array) for name, array in feed.items() if array is not None}


def codebook_feed(labels: Array, instances: Array | None, style: Array | None, config: GeneratorConfig) -> Feed:
    """Inputs of the codebook graph, from the plan of the maps. Arguments as for `dense_feed`. Raises ValueError."""
    symbols = prepare(labels, instances, config)  # [N, H, W]
    styles = check_style(style, len(labels), config)
    return level_feed(plan_levels(symbols, config)) | start_feed(symbols, styles, config)


def start_feed(symbols: Array, style: Array | None, config: GeneratorConfig) -> Feed:
    """The input that becomes the start map: the style or, without one, the symbols at the start size [N, h0, w0]."""
    if style is not None:
        return {"style": style}
    step = 2**config.upsamplings
    return {"start": np.ascontiguousarray(symbols[:, ::step, ::step], np.int32)}


def level_feed(levels: list[Level]) -> Feed:
    """The tables and the index of each level of a plan, smallest first."""
    feed: Feed = {}
    for i, level in enumerate(levels):
        feed |= {f"patches3_{i}": level.patches3, f"patches5_{i}": level.patches5, f"index_{i}": level.index}
    return feed
