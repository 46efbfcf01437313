"""What the weights of a server say of their model."""

from __future__ import annotations

from serving.triton.model_config import ModelOptions
from spade_core.config import GeneratorConfig, preset


def served_config(options: ModelOptions) -> GeneratorConfig:
    """The configuration of the weights that `options` name. Raises ValueError where the weights cannot be read."""
    return served_facts(options)[0]


def served_facts(options: ModelOptions) -> tuple[GeneratorConfig, dict[str, str]]:
    """Configuration and fields of the model that `options` name. Raises ValueError where it cannot be read."""
    if options.weights is None:
        return (preset(options.preset) if options.entry is None else options.entry.config()), {}
    from spade_core.files.weights import info

    found = info(options.weights)
    return found.config, found.metadata
