"""The plan of a symbol map of two or three dimensions, at its own size."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.ops.plan import plan
from kernels.ops.plan_volume import plan_volumes
from spade_core.codebook.entries import LevelTensors


def plan_symbols(symbols: Tensor, count: int, kernel_size: int) -> LevelTensors:
    """Symbols [N, h, w] or [N, d, h, w] -> the plan, its index [N, h, w] or [N, d*h, w]. Raises PlanError."""
    numbers = np.ascontiguousarray(symbols.cpu().numpy().astype(np.uint16))
    if numbers.ndim == 3:
        (level,) = plan(numbers, [(numbers.shape[1], numbers.shape[2])], count, kernel_size)
    else:
        level = plan_volumes(numbers, count, kernel_size)
    index = level.index.reshape(len(numbers), -1, numbers.shape[-1])
    patches3, patches5, flat = (
        torch.from_numpy(array).to(symbols.device) for array in (level.patches3, level.patches5, index)
    )
    return LevelTensors(patches3, patches5, flat)
