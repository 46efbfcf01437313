"""The shapes that an engine is built for: least, usual and largest shape of every input of a graph."""

from __future__ import annotations

import math

from spade_core.config import STYLE_DIM, GeneratorConfig

Shape = tuple[int, ...]
Range = tuple[int, int, int]
"""Least, usual, largest."""

# Distinct patches per pixel of a level, by the least height of the level: COCO-Stuff maps with edges, rounded up
# (docs/plan.md). An engine is tuned for these counts.
SHARES3 = {256: 0.03, 128: 0.1, 64: 0.21, 32: 0.36, 16: 0.57, 0: 0.81}
SHARES5 = {256: 0.1, 128: 0.22, 64: 0.39, 32: 0.59, 16: 0.82, 0: 0.96}
ROOM = 2


class ProfileError(ValueError):
    """An impossible range of batch sizes; the message holds the range."""


def check_batch(batch: Range) -> Range:
    """Return the range. Raises ProfileError unless 1 <= least <= usual <= largest."""
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise ProfileError(f"[tensorrt] expected a batch 1 <= MIN <= OPT <= MAX but got {batch}; for instance 1,4,8")
    return batch


Profile = dict[str, tuple[Shape, Shape, Shape]]
"""The least, usual and largest shape of every input of a graph."""


def input_profiles(config: GeneratorConfig, form: str, batch: Range) -> list[Profile]:
    """The profiles of the graph of `form`: a run takes the first that holds its shapes. Raises ProfileError.

    A dense graph has one. A codebook graph has two: batches whose maps have at most `ROOM` times the usual distinct
    patches, and one map of any plan. One profile for every plan of the largest batch would make TensorRT reserve
    scratch memory for a batch in which every pixel is distinct, several times the memory of these two.
    """
    check_batch(batch)
    if form == "dense":
        image = (config.height, config.width)
        sizes: dict[str, Shape] = {"labels": image}
        if config.instance_edges:
            sizes["instances"] = image
        if config.style:
            sizes["style"] = (STYLE_DIM,)
        return [{name: _batched(batch, size) for name, size in sizes.items()}]
    any_plan = _plans(config, (1, 1, 1), float("inf"))
    return [any_plan] if batch == (1, 1, 1) else [_plans(config, batch, ROOM), any_plan]


def _plans(config: GeneratorConfig, batch: Range, room: float) -> Profile:
    """The profile of plans with up to `room` times the usual patches, and at most one for each pixel."""
    start = {"style": (STYLE_DIM,)} if config.style else {"start": config.level_sizes[0]}
    ranges = {name: _batched(batch, size) for name, size in start.items()}
    for i, (height, width) in enumerate(config.level_sizes):
        pixels, taps = height * width, config.spade_kernel**2
        for name, shares in (("patches3", SHARES3), ("patches5", SHARES5)):
            share = next(share for least, share in shares.items() if height >= least)
            usual = max(1, round(share * pixels * batch[1]))
            most = math.ceil(pixels * batch[2] * min(1, room * share))
            ranges[f"{name}_{i}"] = ((1, taps), (usual, taps), (most, taps))
        ranges[f"index_{i}"] = _batched(batch, (height, width))
    return ranges


def _batched(batch: Range, shape: Shape) -> tuple[Shape, Shape, Shape]:
    return (batch[0], *shape), (batch[1], *shape), (batch[2], *shape)
