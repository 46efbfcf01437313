"""Every network that a configuration can name, and the paper's baselines and ablations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spade_core.config import (
    ENCODER_DECODERS,
    ConfigError,
    GeneratorConfig,
)
from spade_core.models.concat import ConcatGenerator
from spade_core.models.generator import Generator
from spade_core.models.pix2pixhd import EncoderDecoder

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
"""The paper's baselines and ablations, by the fields in which they differ from a preset."""


def ablation(config: GeneratorConfig, name: str) -> GeneratorConfig:
    """`config` with the fields of ABLATIONS[name]. Raises ConfigError, listing the names there are."""
    if name not in ABLATIONS:
        raise ConfigError(f"[config] expected a baseline out of {', '.join(ABLATIONS)} but got {name!r}")
    change = ABLATIONS[name]
    if change.get("architecture") in ENCODER_DECODERS:  # they take no style, and have one depth
        change = change | {"style": False, "upsampling": "normal"}
    return replace(config, **change)


AnyGenerator = Generator | ConcatGenerator | EncoderDecoder


def new_generator(config: GeneratorConfig) -> AnyGenerator:
    """The generator of config.architecture, with PyTorch's own random weights."""
    if config.architecture in ENCODER_DECODERS:
        return EncoderDecoder(config)
    return ConcatGenerator(config) if config.architecture == "concat" else Generator(config)
