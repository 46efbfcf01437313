"""The shapes that an engine is built for: least, usual and largest shape of every input of a graph."""

from __future__ import annotations

from spade_core.config import STYLE_DIM, GeneratorConfig

Shape = tuple[int, ...]
Range = tuple[int, int, int]
"""Least, usual, largest."""

# Distinct patches per pixel of a level, by the least height of the level: COCO-Stuff maps with edges, rounded up
# (docs/plan.md). An engine is tuned for these counts and runs with any count up to the largest.
SHARES3 = {256: 0.03, 128: 0.1, 64: 0.21, 32: 0.36, 16: 0.57, 0: 0.81}
SHARES5 = {256: 0.1, 128: 0.22, 64: 0.39, 32: 0.59, 16: 0.82, 0: 0.96}


class ProfileError(ValueError):
    """An impossible range of batch sizes; the message holds the range."""


def check_batch(batch: Range) -> Range:
    """Return the range. Raises ProfileError unless 1 <= least <= usual <= largest."""
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise ProfileError(f"[tensorrt] expected a batch 1 <= MIN <= OPT <= MAX but got {batch}; for instance 1,4,8")
    return batch


def input_ranges(config: GeneratorConfig, form: str, batch: Range) -> dict[str, tuple[Shape, Shape, Shape]]:
    """The least, usual and largest shape of every input of the graph of `form`. Raises ProfileError."""
    check_batch(batch)
    if form == "dense":
        image = (config.height, config.width)
        sizes: dict[str, Shape] = {"labels": image}
        if config.instance_edges:
            sizes["instances"] = image
        if config.style:
            sizes["style"] = (STYLE_DIM,)
        return {name: _batched(batch, size) for name, size in sizes.items()}
    start = {"style": (STYLE_DIM,)} if config.style else {"start": config.level_sizes[0]}
    ranges = {name: _batched(batch, size) for name, size in start.items()}
    for i, (height, width) in enumerate(config.level_sizes):
        pixels, taps = height * width, config.spade_kernel**2
        for name, shares in (("patches3", SHARES3), ("patches5", SHARES5)):
            share = next(share for least, share in shares.items() if height >= least)
            usual = max(1, round(share * pixels * batch[1]))
            ranges[f"{name}_{i}"] = ((1, taps), (usual, taps), (pixels * batch[2], taps))
        ranges[f"index_{i}"] = _batched(batch, (height, width))
    return ranges


def _batched(batch: Range, shape: Shape) -> tuple[Shape, Shape, Shape]:
    return (batch[0], *shape), (batch[1], *shape), (batch[2], *shape)
