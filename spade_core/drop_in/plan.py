"""The plan of a symbol map of two or three dimensions, at its own size."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kernels.ops.plan import plan
from kernels.ops.plan_volume import plan_volumes
from spade_core.codebook.entries import LevelTensors


@dataclass(frozen=True, eq=False)
class MapLevel:
    """A segmap's plan at one size.

    Attributes:
        tensors: the plan, its index [N, h, w] or [N, d*h, w].
        images: the entries of each image, in turn.
        shares: float64 [U5], the part of its image that each entry covers; they add up to 1 for each image.
    """

    tensors: LevelTensors
    images: tuple[slice, ...]
    shares: Tensor


def plan_symbols(symbols: Tensor, count: int, kernel_size: int) -> MapLevel:
    """Plan symbols [N, h, w] or [N, d, h, w], below `count`. Raises PlanError."""
    with torch.inference_mode(False):  # the plan may serve a later training step
        return _planned(symbols, count, kernel_size)


def _planned(symbols: Tensor, count: int, kernel_size: int) -> MapLevel:
    numbers = np.ascontiguousarray(symbols.cpu().numpy().astype(np.uint16))
    if numbers.ndim == 3:
        (level,) = plan(numbers, [(numbers.shape[1], numbers.shape[2])], count, kernel_size)
    else:
        level = plan_volumes(numbers, count, kernel_size)
    index = level.index.reshape(len(numbers), -1, numbers.shape[-1])
    covered = np.bincount(index.ravel(), minlength=len(level.patches5)) / index[0].size
    patches3, patches5, flat, shares = (
        torch.from_numpy(array).to(symbols.device) for array in (level.patches3, level.patches5, index, covered)
    )
    starts = level.patches5_offsets.tolist()
    images = tuple(slice(start, end) for start, end in itertools.pairwise(starts))
    return MapLevel(LevelTensors(patches3, patches5, flat), images, shares)
