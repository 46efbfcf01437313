"""The network of every architecture, and the paper's baselines and ablations.

To add a SPADE-family generator, write its network in a file of its own, a subclass of `AnyGenerator`; add one line
here, in GENERATORS, and one in `spade_core.config.ARCHITECTURES`, which says what a configuration may ask for and is
read without PyTorch. Both forms, checkpoints, costs, spectral norm and training then take the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spade_core.config import ARCHITECTURES, ConfigError, GeneratorConfig
from spade_core.models.concat import ConcatGenerator
from spade_core.models.form import AnyGenerator
from spade_core.models.generator import Generator
from spade_core.models.one_hot_model import refuse_config
from spade_core.models.pix2pixhd import EncoderDecoder, SpadeEncoderDecoder
from spade_core.models.shapes import Shapes
from spade_core.models.spadenet import SpadeNet, Widths

GENERATORS: dict[str, Callable[[GeneratorConfig], AnyGenerator]] = {
    "spade": Generator,
    "concat": ConcatGenerator,
    "pix2pixhd": EncoderDecoder,
    "pix2pixhd-spade": SpadeEncoderDecoder,
    "spadenet": SpadeNet,
    "module": refuse_config,
}
"""The network of each architecture in `spade_core.config.ARCHITECTURES`."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "spade": {},
    "spade, noise input": {"style": True},
    "spade 1x1": {"spade_kernel": 1},
    "spade 5x5": {"spade_kernel": 5},
    "spade, nf 48": {"nf": 48},
    "spade, nf 80": {"nf": 80},
    "spade, instance norm": {"norm": "instance"},
    "spade, batch norm": {"norm": "batch"},
    "concat": {"architecture": "concat"},
    "pix2pixhd": {"architecture": "pix2pixhd", "norm": "instance"},
    "pix2pixhd++": {"architecture": "pix2pixhd"},
    "pix2pixhd++ with spade": {"architecture": "pix2pixhd-spade"},
}
"""The paper's baselines and ablations (SPADE paper, tables 3 and 4), by the fields that differ from a preset."""


def new_generator(config: GeneratorConfig, shapes: Shapes | None = None) -> AnyGenerator:
    """The generator of config.architecture, with PyTorch's own random weights.

    `shapes` of a SPADENet's tensors tell its widths, which no configuration tells.
    """
    if config.architecture == "spadenet" and shapes is not None:
        return SpadeNet(config, Widths.of(shapes))
    return GENERATORS[config.architecture](config)


def ablation(config: GeneratorConfig, name: str) -> GeneratorConfig:
    """`config` with the fields of ABLATIONS[name]. Raises ConfigError, listing the known names.

    Another architecture may lack a style, or the depth of `config`: style is then false, and the depth its first one.
    """
    if name not in ABLATIONS:
        raise ConfigError(f"[config] expected a baseline out of {', '.join(ABLATIONS)} but got {name!r}")
    change = ABLATIONS[name]
    if "architecture" in change:
        architecture = ARCHITECTURES[change["architecture"]]
        if not architecture.style:
            change = change | {"style": False}
        if config.upsampling not in architecture.upsamplings:
            change = change | {"upsampling": next(iter(architecture.upsamplings))}
    return replace(config, **change)
