"""The table of shapes names the tensors of the networks, in their order."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from spade_core.config import PRESETS, GeneratorConfig
from spade_core.files.checkpoints import state_of
from spade_core.files.faults import shapes_of
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator
from spade_core.models.shapes import encoder_nf, encoder_shapes, generator_shapes

VARIANTS = [
    replace(PRESETS[name], upsampling=upsampling, norm=norm, spade_kernel=kernel)
    for name, (upsampling, norm, kernel) in product(
        PRESETS, [("normal", "batch", 1), ("more", "instance", 3), ("most", "syncbatch", 5)]
    )
]


@pytest.mark.parametrize("config", [*PRESETS.values(), *VARIANTS])
def test_of_a_generator(config: GeneratorConfig) -> None:
    with torch.device("meta"):
        expected = shapes_of(state_of(Generator(config)))
    assert list(generator_shapes(config).items()) == list(expected.items())


@pytest.mark.parametrize("nf", [1, 4, 64])
def test_of_an_encoder(nf: int) -> None:
    with torch.device("meta"):
        expected = shapes_of(state_of(StyleEncoder(nf)))
    assert list(encoder_shapes(nf).items()) == list(expected.items())
    assert encoder_nf(expected) == nf
    assert encoder_nf({key: shape for key, shape in expected.items() if key != "layer1.0.weight"}) == nf
    assert encoder_nf({}) == 64
