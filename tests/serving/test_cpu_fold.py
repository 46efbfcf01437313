"""Folding in NumPy gives the bits of folding in PyTorch, so images are the same with PyTorch and without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from serving.engines.cpu.fold import fold, symbol_table
from spade_core.codebook.fold import fold as fold_torch
from spade_core.config import GeneratorConfig, preset
from spade_core.files.checkpoints import arrays_of
from spade_core.models.generator import Generator
from spade_core.models.spade import SPADE
from spade_core.models.symbol_table import symbol_table as symbol_table_torch

SMALL = replace(preset("coco"), label_nc=6, nf=4, height=32, width=32)


def trained(config: GeneratorConfig) -> Generator:
    """A generator in eval mode whose every tensor is random, variances from 1e-6 to 1e6."""
    torch.manual_seed(0)
    generator = Generator(config).eval()
    for key, tensor in generator.state_dict().items():
        if key.endswith("running_var"):
            tensor.copy_(10 ** torch.empty_like(tensor).uniform_(-6, 6))
        elif tensor.is_floating_point():
            tensor.normal_()
    return generator


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("edges", [False, True])
@torch.no_grad()
def test_a_norm_is_folded_to_the_same_bits(kernel: int, norm: str, edges: bool) -> None:
    config = replace(SMALL, spade_kernel=kernel, norm=norm, instance_edges=edges)  # type: ignore[arg-type]
    generator = trained(config)
    norms = [(name, module) for name, module in generator.named_modules() if isinstance(module, SPADE)]
    assert len(norms) == 18
    for _, module in norms:
        expected, found = fold_torch(module, config), fold(arrays_of(module), config)
        taps = kernel * kernel
        np.testing.assert_array_equal(found.table, expected.table.view(taps, config.symbols + 1, -1).numpy())
        np.testing.assert_array_equal(found.shared_bias, expected.shared_bias.numpy())
        np.testing.assert_array_equal(found.weight, expected.weight.numpy())
        np.testing.assert_array_equal(found.bias, expected.bias.numpy())
        assert (found.weight.flags.c_contiguous, found.weight.dtype) == (True, np.float32)
        assert found.instance == (expected.norm is not None)


@torch.no_grad()
def test_the_table_of_the_first_layer() -> None:
    fc = trained(SMALL).fc
    assert isinstance(fc, torch.nn.Conv2d)
    expected = symbol_table_torch(fc.weight, SMALL).view(9, SMALL.symbols + 1, -1)
    np.testing.assert_array_equal(symbol_table(fc.weight.numpy(), SMALL), expected.numpy())
