"""Published PyTorch weights (`latest_net_G.pth`, `latest_net_E.pth`) to a checkpoint, with every difference named."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kernels.constants import HIDDEN
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.files.checkpoints import encoder_nf, fill, refuse_non_finite, save, state_of
from spade_core.files.faults import key_faults, refuse_faults
from spade_core.files.manifest import sha256
from spade_core.files.pickled import ConvertError, read_state_dict
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator
from spade_core.models.spectral import SPECTRAL_EPS

PUBLISHED = ("coco", "ade20k", "cityscapes")
_WIDTH_KEYS = tuple(f"{block}.conv_{i}.weight" for block in ("head_0", "G_middle_0", "G_middle_1") for i in (0, 1))


@dataclass(frozen=True)
class ConversionReport:
    """The result of `convert`.

    Attributes:
        out: the checkpoint that was written.
        folded: keys of the weights whose spectral norm was folded in.
        dropped: keys that inference does not need.
        generator_parameters, encoder_parameters: number of trained values; 0 without an encoder.
    """

    out: Path
    config: GeneratorConfig
    folded: tuple[str, ...]
    dropped: tuple[str, ...]
    generator_parameters: int
    encoder_parameters: int

    def __str__(self) -> str:
        encoder = f"{self.encoder_parameters / 1e6:.2f} M" if self.encoder_parameters else "none"
        return (
            f"{self.out}: preset '{self.config.preset}', {_describe(self.config)}\n"
            f"generator {self.generator_parameters / 1e6:.2f} M parameters, encoder {encoder}; "
            f"spectral norm folded into {len(self.folded)} convs, {len(self.dropped)} keys dropped"
        )


@dataclass(frozen=True)
class _Folded:
    tensors: dict[str, Tensor]
    folded: tuple[str, ...]
    dropped: tuple[str, ...]


def convert(
    generator_pth: Path, encoder_pth: Path | None, out: Path, *, config: GeneratorConfig | None = None
) -> ConversionReport:
    """Write published weights as a checkpoint at `out`. Without `config`, the shapes tell the preset.

    Raises ConvertError for a wrong file, an unknown architecture or keys that differ (naming every key), and
    CheckpointError.
    """
    state = read_state_dict(generator_pth)
    _refuse_other_network(generator_pth, state, "generator")
    weights = fold_spectral_norm(generator_pth, state)
    config = config or find_config(generator_pth, weights.tensors)
    with torch.device("meta"):  # only shapes, until the weights are known to fit
        generator = Generator(config)
    _check(generator_pth, weights.tensors, generator, f"a '{config.preset}' generator ({_describe(config)})")
    fill(generator, weights.tensors)
    encoder, encoder_weights = None, _Folded({}, (), ())
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
        config,
        weights.folded + encoder_weights.folded,
        weights.dropped + encoder_weights.dropped,
        _count(generator),
        0 if encoder is None else _count(encoder),
    )


def find_config(path: Path, tensors: Mapping[str, Tensor]) -> GeneratorConfig:
    """The preset with as many input channels as the weights, with the weights' own nf, norm, kernel and start.

    No shape tells the image size, or `normal` from `more`: both come from the preset. Raises ConvertError.
    """
    shared = next((t.shape for k, t in tensors.items() if k.endswith(".mlp_shared.0.weight") and t.ndim == 4), None)
    semantic_nc = None if shared is None else shared[1]
    name = next((n for n in PUBLISHED if PRESETS[n].semantic_nc == semantic_nc), None)
    if shared is None or name is None:
        known = ", ".join(f"{PRESETS[n].semantic_nc} ({n})" for n in PUBLISHED)
        raise ConvertError(
            f"[convert] expected one of the published numbers of input channels, {known}, but got {semantic_nc} in "
            f"'{path}'; give a config: classes, image size and upsampling cannot be read off these weights"
        )
    preset = PRESETS[name]
    # A key that is missing or has an odd shape is ignored here; `_check` names it with all others.
    fc = tensors.get("fc.weight")
    widths = [tensors[k].shape[0] // 16 for k in _WIDTH_KEYS if k in tensors and tensors[k].ndim]
    fields = preset.to_dict() | {
        "nf": statistics.mode(widths) if widths else preset.nf,
        "upsampling": "most" if any(key.startswith("up_4.") for key in tensors) else preset.upsampling,
        "norm": preset.norm if any(key.endswith("running_mean") for key in tensors) else "instance",
        "spade_kernel": shared[2],
        "style": fc is not None and fc.ndim == 2,
    }
    try:
        return GeneratorConfig.from_dict(fields)
    except ValueError as error:
        raise ConvertError(
            f"[convert] expected '{path}' to be a variant of '{name}' but got {error}; give a config"
        ) from None


def fold_spectral_norm(path: Path, state: Mapping[str, Tensor]) -> _Folded:
    """Fold spectral norm into the weights: weight = weight_orig / (u^T W v), W = weight_orig as [out, -1], in float64.

    Miyato et al., arXiv 1802.05957, equation 8 and algorithm 1. Old PyTorch saved no `weight_v`: v is then
    normalize(W^T u). Old PyTorch also saved a stale `weight` beside `weight_orig`, which is dropped. Raises
    ConvertError, naming every conv whose vectors are missing or do not fit.
    """
    tensors: dict[str, Tensor] = {}
    folded, dropped, faults = [], [], []
    for key, tensor in state.items():
        stem, _, suffix = key.rpartition(".")
        if suffix == "num_batches_tracked" or (suffix == "weight" and f"{key}_orig" in state):
            dropped.append(key)
        elif suffix in ("weight_u", "weight_v") and f"{stem}.weight_orig" in state:
            continue
        elif suffix == "weight_orig":
            name = f"{stem}.weight"
            fault = _vector_faults(name, tensor, state)
            faults += fault
            if not fault:
                tensors[name] = _folded_weight(tensor, state[f"{name}_u"], state.get(f"{name}_v"))
                folded.append(name)
        else:
            tensors[key] = tensor
    refuse_faults(
        ConvertError, faults, path,
        "[convert] expected spectral norm's vectors beside every weight_orig",
        "the file is not as training saved it: fetch it again",
    )  # fmt: skip
    return _Folded(tensors, tuple(folded), tuple(dropped))


def _vector_faults(name: str, weight: Tensor, state: Mapping[str, Tensor]) -> list[str]:
    if f"{name}_u" not in state:
        return [f"missing {name}_u"]
    if weight.ndim < 2:
        return [f"{name}_orig is {list(weight.shape)}, not a conv's"]
    wanted = {f"{name}_u": (weight.shape[0],), f"{name}_v": (weight[0].numel(),)}
    found = {key: tuple(state[key].shape) for key in wanted if key in state}
    return [f"{key} is {list(found[key])}, not {list(wanted[key])}" for key in found if found[key] != wanted[key]]


def _folded_weight(weight: Tensor, u: Tensor, v: Tensor | None) -> Tensor:
    matrix, left = weight.double().flatten(1), u.double()  # [out, in * k * k], [out]
    right = matrix.T @ left if v is None else v.double()
    if v is None:
        right = right / right.norm().clamp_min(SPECTRAL_EPS)
    sigma = left @ matrix @ right
    return (weight.double() / sigma).float()


def _encoder(path: Path) -> tuple[StyleEncoder, _Folded]:
    state = read_state_dict(path)
    _refuse_other_network(path, state, "encoder")
    weights = fold_spectral_norm(path, state)
    with torch.device("meta"):
        encoder = StyleEncoder(encoder_nf(weights.tensors))
    _check(path, weights.tensors, encoder, "a style encoder for images of 256 pixels and more")
    fill(encoder, weights.tensors)
    return encoder, weights


def _check(path: Path, tensors: Mapping[str, Tensor], module: nn.Module, kind: str) -> None:
    faults = key_faults(tensors, state_of(module))
    faults += [f"{key} is {tensor.dtype}" for key, tensor in tensors.items() if not tensor.is_floating_point()]
    refuse_faults(
        ConvertError, faults, path,
        f"[convert] expected the keys of {kind}",
        "give the config that these weights were trained with",
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
