"""What a generator costs: parameters and multiply-adds, counted, not estimated."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.dense import synthesize_dense
from spade_core.generator import Generator


def parameters(config: GeneratorConfig) -> int:
    """Number of trained values of the generator, running statistics not included."""
    with torch.device("meta"):
        return sum(p.numel() for p in Generator(config).parameters())


def dense_macs(config: GeneratorConfig) -> int:
    """Multiply-adds of one image at the configured size in the dense form: its convs and matrix products."""
    with torch.device("meta"), torch.no_grad():
        generator = Generator(config)
        symbols = torch.zeros((1, config.height, config.width), dtype=torch.int32)
        style = torch.zeros((1, STYLE_DIM)) if config.style else None
        with FlopCounterMode(display=False) as counter:
            synthesize_dense(generator, symbols, style)
    return int(counter.get_total_flops()) // 2
