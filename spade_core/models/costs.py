"""The costs of a generator: parameters and multiply-adds, counted on the network itself."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.models.dense import synthesize_dense
from spade_core.models.registry import ABLATIONS, ablation, new_generator


def parameters(config: GeneratorConfig) -> int:
    """Number of trained values of the generator, without running statistics."""
    with torch.device("meta"):
        return sum(p.numel() for p in new_generator(config).parameters())


def dense_macs(config: GeneratorConfig) -> int:
    """Multiply-adds of the convs and matrix products for one image of the configured size, in the dense form."""
    with torch.device("meta"), torch.no_grad():
        generator = new_generator(config).eval()  # one image has no batch statistics
        symbols = torch.zeros((1, config.height, config.width), dtype=torch.int32)
        style = torch.zeros((1, STYLE_DIM)) if config.style else None
        with FlopCounterMode(display=False) as counter:
            synthesize_dense(generator, symbols, style)
    return int(counter.get_total_flops()) // 2


def baseline_costs(config: GeneratorConfig) -> list[tuple[str, int, int]]:
    """(name, parameters, dense multiply-adds) of each of ABLATIONS, at the size of `config`."""
    configs = {name: ablation(config, name) for name in ABLATIONS}
    return [(name, parameters(one), dense_macs(one)) for name, one in configs.items()]
