"""Generators for the tests of the engines."""

from __future__ import annotations

import numpy as np

from spade_core.config import GeneratorConfig
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator


def trained_like(config: GeneratorConfig) -> Generator:
    """A generator of seeded weights, with random running statistics and biases as training leaves them."""
    rng = np.random.default_rng(3)
    generator = seeded_generator(config)
    for name, tensor in generator.state_dict().items():
        spread = {"running_mean": (-0.2, 0.2), "running_var": (0.5, 1.5), "bias": (-0.1, 0.1)}.get(name.split(".")[-1])
        if spread is not None:
            tensor.copy_(tensor.new_tensor(rng.uniform(*spread, tuple(tensor.shape))))
    return generator
