"""One-hot label maps."""

from __future__ import annotations

import torch
from torch import Tensor

from spade_core.config import GeneratorConfig


def one_hot(symbols: Tensor, config: GeneratorConfig, dtype: torch.dtype) -> Tensor:
    """Symbols [N, H, W] -> one-hot map [N, semantic_nc, H, W]: the classes, then the edge channel if there is one."""
    labels = symbols // 2 if config.instance_edges else symbols
    classes = torch.arange(config.classes, dtype=symbols.dtype, device=symbols.device)
    segmap = (labels[:, None] == classes[None, :, None, None]).to(dtype)  # [N, classes, H, W]
    if config.instance_edges:
        segmap = torch.cat([segmap, (symbols % 2)[:, None].to(dtype)], dim=1)
    return segmap
