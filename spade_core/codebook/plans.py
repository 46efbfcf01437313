"""The plan of symbol maps at a model's own levels."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.ops.plan import Level, plan
from spade_core.config import GeneratorConfig, level_sizes
from spade_core.types import Symbols


def plan_levels(symbols: Symbols, config: GeneratorConfig) -> list[Level]:
    """Symbols uint16 [N, H, W] -> one Level for each resolution of the generator, smallest first. Raises PlanError."""
    sizes = level_sizes(symbols.shape[1], symbols.shape[2], config.upsamplings)
    return plan(symbols, sizes, config.symbols, config.spade_kernel)


def distinct_share(levels: Sequence[Level]) -> float:
    """Distinct 5x5 patches per pixel over all levels, 0..1."""
    return sum(len(level.patches5) for level in levels) / sum(level.index.size for level in levels)
