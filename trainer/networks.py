"""The networks of a run: generator, style encoder, discriminator, and the averaged copies that are exported."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.losses import wide
from spade_core.models.dense import synthesize_dense
from spade_core.models.discriminator import Discriminator
from spade_core.models.encoder import StyleEncoder
from spade_core.models.form import AnyGenerator
from spade_core.models.registry import new_generator
from spade_core.models.spectral import folded_state, with_spectral_norm
from trainer.config import TrainConfig
from trainer.data.dataset import Batch
from trainer.processes import Processes, same_everywhere, synchronise_norms

INIT_GAIN = 0.02  # of xavier normal (Glorot and Bengio, 2010; SPADE, appendix A)

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Networks:
    """The networks that train, and the averages that are exported.

    Attributes:
        encoder: None where the model takes no style, or takes noise as its style.
        average, average_encoder: averages of the weights, without spectral norm, in eval mode.
    """

    generator: AnyGenerator
    encoder: StyleEncoder | None
    discriminator: Discriminator
    average: AnyGenerator
    average_encoder: StyleEncoder | None

    def trained(self) -> Iterator[tuple[str, nn.Module]]:
        """The networks that an optimiser moves, by name."""
        yield "generator", self.generator
        if self.encoder is not None:
            yield "encoder", self.encoder
        yield "discriminator", self.discriminator

    def everything(self) -> Iterator[tuple[str, nn.Module]]:
        """All networks, by name; a checkpoint holds them."""
        yield from self.trained()
        yield "average", self.average
        if self.average_encoder is not None:
            yield "average_encoder", self.average_encoder


def build(config: TrainConfig, processes: Processes) -> Networks:
    """New networks: xavier-normal weights of gain 0.02 and zero biases, the same in every process."""
    sizes = config.networks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        generator = _started(new_generator(config.model))
        encoder = _started(StyleEncoder(sizes.encoder_nf)) if config.model.style and sizes.encoder_nf else None
        discriminator = _started(
            Discriminator(
                config.model.semantic_nc,
                sizes.discriminator_nf,
                sizes.discriminator_scales,
                sizes.discriminator_layers,
            )
        )
        average, average_encoder = deepcopy(generator).eval(), None if encoder is None else deepcopy(encoder).eval()
        if processes.world > 1 and config.model.norm == "syncbatch":
            synchronise_norms(generator)
        networks = Networks(generator, encoder, discriminator, average, average_encoder)
        if sizes.spectral_norm:
            for _, module in networks.trained():
                with_spectral_norm(module)
    for _, module in networks.everything():
        module.to(processes.device)
        if config.run.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average.requires_grad_(False)
    if average_encoder is not None:
        average_encoder.requires_grad_(False)
    same_everywhere((module for _, module in networks.everything()), processes.world)
    return networks


def synthesize(generator: AnyGenerator, batch: Batch, style: Tensor | None, form: str) -> Tensor:
    """The batch's images [N, 3, H, W] in -1..1, by the form `codebook` or `dense`; every parameter has a gradient."""
    if form == "dense":
        return torch.tanh(synthesize_dense(generator, batch.symbols, style))
    return torch.tanh(synthesize_codebook(generator, None, batch.symbols, batch.levels, style))


def sampled_style(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z = mean + exp(log_variance / 2) * noise, all [N, 256]; noise is standard normal.

    SPADE, appendix A: the reparameterization trick (Kingma and Welling, arXiv 1312.6114, section 2.4).
    """
    return wide(mean) + torch.exp(0.5 * wide(log_variance)) * noise


@torch.no_grad()
def update_average(networks: Networks, decay: float, step: int) -> None:
    """Move the averages towards the weights with spectral norm folded in.

    Args:
        decay: share of the old average that a step keeps; (1 + step) / (10 + step) where this is less.
        step: steps taken before.
    """
    rate = 1 - min(decay, (1 + step) / (10 + step))
    for average, module in (
        (networks.average, networks.generator),
        (networks.average_encoder, networks.encoder),
    ):
        if average is None or module is None:
            continue
        now = folded_state(module)
        for key, tensor in average.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(now[key].to(tensor.dtype), rate)
            else:
                tensor.copy_(now[key])


def _started(module: Module) -> Module:
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_normal_(part.weight, INIT_GAIN)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module
