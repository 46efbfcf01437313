"""Published PyTorch weights (`latest_net_G.pth`, `latest_net_E.pth`) to a checkpoint, with every difference named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kernels.constants import HIDDEN
from spade_core.config import GeneratorConfig
from spade_core.files.checkpoints import fill, refuse_non_finite, save, state_of
from spade_core.files.faults import key_faults, refuse_faults, shapes_of
from spade_core.files.folded import Folded, fold_norms
from spade_core.files.found_config import FoundConfig, Known, find_config
from spade_core.files.manifest import sha256
from spade_core.files.pickled import ConvertError, read_state_dict
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator
from spade_core.models.shapes import encoder_nf


@dataclass(frozen=True)
class ConversionReport:
    """The result of `convert`.

    Attributes:
        out: the checkpoint that was written.
        found: the configuration, and where each of its fields came from.
        folded: keys of the weights whose spectral norm or weight norm was folded in.
        dropped: keys that inference does not need.
        generator_parameters, encoder_parameters: number of trained values; 0 without an encoder.
    """

    out: Path
    found: FoundConfig
    folded: tuple[str, ...]
    dropped: tuple[str, ...]
    generator_parameters: int
    encoder_parameters: int

    @property
    def config(self) -> GeneratorConfig:
        """The configuration of the checkpoint."""
        return self.found.config

    def __str__(self) -> str:
        encoder = f"{self.encoder_parameters / 1e6:.2f} M" if self.encoder_parameters else "none"
        return (
            f"{self.out}: preset '{self.config.preset}', {_describe(self.config)}\n{self.found}\n"
            f"generator {self.generator_parameters / 1e6:.2f} M parameters, encoder {encoder}; "
            f"spectral norm folded into {len(self.folded)} convs, {len(self.dropped)} keys dropped"
        )


def convert(
    generator_pth: Path, encoder_pth: Path | None, out: Path, *, known: Known | None = None
) -> ConversionReport:
    """Write published weights as a checkpoint at `out`. The shapes tell the configuration, as far as `known` does not.

    Raises ConvertError for a wrong file, an unknown architecture or keys that differ, and CheckpointError.
    """
    state = read_state_dict(generator_pth)
    _refuse_other_network(generator_pth, state, "generator")
    weights = fold_norms(generator_pth, state)
    found = find_config(generator_pth, weights.tensors, known or Known())
    config = found.config
    with torch.device("meta"):  # only shapes, until the weights are known to fit
        generator = Generator(config)
    _check(generator_pth, weights.tensors, generator, f"a '{config.preset}' generator ({_describe(config)})")
    fill(generator, weights.tensors)
    encoder, encoder_weights = None, Folded({}, (), ())
    if encoder_pth is not None:
        if not config.style:
            raise ConvertError(
                f"[convert] expected no style encoder, since '{generator_pth}' takes no style vector, "
                f"but got '{encoder_pth}'; leave the encoder out"
            )
        encoder, encoder_weights = _encoder(encoder_pth)
    save(out, generator, encoder, _metadata(generator_pth, encoder_pth))
    return ConversionReport(
        out,
        found,
        weights.folded + encoder_weights.folded,
        weights.dropped + encoder_weights.dropped,
        _count(generator),
        0 if encoder is None else _count(encoder),
    )


def _encoder(path: Path) -> tuple[StyleEncoder, Folded]:
    state = read_state_dict(path)
    _refuse_other_network(path, state, "encoder")
    weights = fold_norms(path, state)
    with torch.device("meta"):
        encoder = StyleEncoder(encoder_nf(shapes_of(weights.tensors)))
    _check(path, weights.tensors, encoder, "a style encoder for images of 256 pixels and more")
    fill(encoder, weights.tensors)
    return encoder, weights


def _check(path: Path, tensors: Mapping[str, Tensor], module: nn.Module, kind: str) -> None:
    faults = key_faults(shapes_of(tensors), shapes_of(state_of(module)))
    faults += [f"{key} is {tensor.dtype}" for key, tensor in tensors.items() if not tensor.is_floating_point()]
    refuse_faults(
        ConvertError, faults, path,
        f"[convert] expected the keys of {kind}",
        "give the config that these weights were trained with, by --config FILE or --set FIELD=VALUE",
    )  # fmt: skip
    refuse_non_finite("convert", str(path), tensors)


def _refuse_other_network(path: Path, state: Mapping[str, Tensor], wanted: str) -> None:
    signs = {"head_0.": "generator", "layer1.": "encoder", "discriminator_": "discriminator"}
    kind = next((kind for start, kind in signs.items() if any(key.startswith(start) for key in state)), None)
    if kind == wanted:
        return
    name = "latest_net_G.pth" if wanted == "generator" else "latest_net_E.pth"
    if kind is None:
        found = f"keys such as {', '.join(sorted(state)[:3])}"
        raise ConvertError(
            f"[convert] expected a SPADE {wanted} in '{path}' but got {found}; give {name} of a SPADE model"
        )
    raise ConvertError(f"[convert] expected the {wanted} in '{path}' but got the {kind}'s weights; give {name}")


def _describe(config: GeneratorConfig) -> str:
    style = "with style" if config.style else "without style"
    return (
        f"semantic_nc {config.semantic_nc}, nf {config.nf}, {config.upsampling}, {config.norm} norm, "
        f"SPADE {config.spade_kernel}x{config.spade_kernel} {HIDDEN}, {style}, {config.height}x{config.width}"
    )


def _metadata(generator_pth: Path, encoder_pth: Path | None) -> dict[str, str]:
    fields = {"trained": "true"}
    for part, path in (("generator", generator_pth), ("encoder", encoder_pth)):
        if path is not None:
            fields |= {f"source.{part}": path.name, f"source.{part}.sha256": sha256(path)}
    return fields


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
