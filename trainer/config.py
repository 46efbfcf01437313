"""What a training run is: one TOML file, a plain dataclass per section, every field with its help."""

# ruff: noqa: RUF009 - `_say` is dataclasses.field with a help text
from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from spade_core.config import PRESETS, ConfigError, GeneratorConfig

Layout = Literal["scenes", "folder", "coco", "ade20k", "cityscapes"]
Preprocess = Literal[
    "resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "scale_shortside", "scale_shortside_and_crop",
    "fixed", "none",
]  # fmt: skip
Form = Literal["codebook", "dense"]
Precision = Literal["fp32", "bf16"]
WeightsDtype = Literal["float32", "bfloat16"]
Gan = Literal["hinge", "least-squares", "original", "wasserstein"]


def _say(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class NetworkConfig:
    """What trains beside and around the generator; the generator itself is the section `model`."""

    form: Form = _say("codebook", "How SPADE's gamma and beta are computed; both give the same gradients.")
    spectral_norm: bool = _say(True, "Spectral norm on the convs of generator, encoder and discriminator.")
    encoder_nf: int = _say(
        64, "Width of the style encoder's first conv, where model.style is true; 0: none, styles are noise."
    )
    discriminator_nf: int = _say(64, "Width of the discriminator's first conv.")
    discriminator_scales: int = _say(2, "PatchGANs, each on the image halved once more.")
    discriminator_layers: int = _say(4, "Convs of each PatchGAN before the last.")


@dataclass(frozen=True)
class DataConfig:
    """Where label maps and images come from, and how they are brought to the model's size."""

    layout: Layout = _say("scenes", "Folder layout of the data set; `scenes` are drawn and need no files.")
    root: str = _say("", "Folder of the data set; empty for `scenes`.")
    colours: str = _say("", "Colour table (.csv or .json) of label maps in RGB; empty: label maps hold ids.")
    preprocess: Preprocess = _say("resize_and_crop", "How images are brought to the model's size.")
    load_size: int = _say(286, "Size before the crop, pixels: width, or the short side in the scale_shortside modes.")
    flip: bool = _say(True, "Mirror every other image, by chance.")
    scenes: int = _say(10_000, "Images that count as an epoch of `scenes`; no scene comes twice.")
    workers: int = _say(4, "Loader processes of each training process; 0 loads in the training process.")


@dataclass(frozen=True)
class OptimConfig:
    """Adam and its schedule. All counts are in images, so they do not change with the number of processes."""

    batch: int = _say(4, "Images of one process in one pass; a step is batch x accumulate x processes.")
    accumulate: int = _say(1, "Passes whose gradients are added up before a step.")
    epochs: int = _say(100, "Epochs at the constant learning rate.")
    decay_epochs: int = _say(0, "Epochs after those, over which the learning rate falls linearly to 0.")
    lr: float = _say(2e-4, "Base learning rate.")
    ttur: bool = _say(True, "Two time scales: lr / 2 for generator and encoder, 2 lr for the discriminator.")
    beta1: float = _say(0.0, "Adam's first decay.")
    beta2: float = _say(0.9, "Adam's second decay.")
    ema: float = _say(0.999, "Decay, a step, of the averaged generator, which is the one exported; 0 exports the last.")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; a weight of 0 leaves one out."""

    gan: Gan = _say("hinge", "Kind of the adversarial loss, whose weight is 1.")
    feature_matching: float = _say(10.0, "L1 between the discriminator's features of fake and real.")
    perceptual: float = _say(10.0, "L1 between a network's features; off, and said so, without vgg or features.")
    vgg: str = _say("", "File with torchvision's VGG19 weights (.pth or .safetensors).")
    features: str = _say("", "Instead of VGG19: a TorchScript file that returns maps, or `scenes`: ours that ships.")
    kl: float = _say(0.05, "KL divergence of the encoder's style from the standard normal; where model.style is true.")
    kl_warmup: int = _say(0, "Images over which loss.kl rises from 0, so that the style is used before it costs.")
    pixel: float = _say(0.0, "L1 between fake and real; not of the paper, a help where there is no VGG.")


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run computes, and what it writes."""

    out: str = _say("out/train", "Folder of checkpoints, samples, statistics and report; a run in it is resumed.")
    seed: int = _say(0, "Of weights, order, crops, flips and styles.")
    device: str = _say("auto", "auto (a GPU if there is one), cpu or cuda.")
    threads: int = _say(0, "Threads of each training process on the CPU; 0 leaves PyTorch's choice.")
    precision: Precision = _say("fp32", "bf16 runs convs and products in bfloat16; weights and Adam stay float32.")
    channels_last: bool = _say(True, "Keep activations channels last.")
    checkpoint_steps: int = _say(1000, "Steps between checkpoints.")
    keep: int = _say(3, "Checkpoints kept.")
    log_steps: int = _say(50, "Steps between rows of statistics, each a mean over them.")
    sample_steps: int = _say(1000, "Steps between sample grids.")
    samples: int = _say(6, "Label maps in a sample grid.")
    calibration: int = _say(
        16, "Batches that measure the averaged generator's batch-norm statistics before it is used."
    )
    weights_dtype: WeightsDtype = _say("float32", "Of the exported weights.")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run, the tables of its TOML file."""

    model: GeneratorConfig
    networks: NetworkConfig
    data: DataConfig
    optim: OptimConfig
    loss: LossConfig
    run: RunConfig

    def __post_init__(self) -> None:
        _check(self)


SECTIONS: dict[str, type] = {
    "networks": NetworkConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "loss": LossConfig,
    "run": RunConfig,
}
_MODEL_HELP = {
    "preset": "What the rest of this table starts from: coco, ade20k, cityscapes, demo.",
    "label_nc": "Classes in a label map file, ids 0 .. label_nc - 1.",
    "dont_care": "Pixel value 255 is a class of its own.",
    "instance_edges": "The edges of instance maps are an input.",
    "height": "Of the image, pixels.",
    "width": "Of the image, pixels.",
    "nf": "Feature maps at full width; 16 nf at the smallest.",
    "upsampling": "x2 steps: normal 5, more 6, most 7.",
    "norm": "Norm inside SPADE: instance, batch (each process its own), syncbatch (over all processes).",
    "spade_kernel": "Size of SPADE's convs: 1, 3 or 5.",
    "style": "Start from a style vector, with a style encoder; false starts from the label map.",
    "architecture": "spade, or a baseline of the paper: concat, pix2pixhd, pix2pixhd-spade.",
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a TOML file, then `section.field=value` overrides (values as in TOML, or bare text). Raises ConfigError."""
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"[config] expected a readable TOML file but got '{path}': {error}") from None
    for override in overrides:
        name, separator, value = override.partition("=")
        section, dot, key = name.strip().partition(".")
        if not separator or not dot or not key:
            raise ConfigError(f"[config] expected --set section.field=value but got {override!r}; say optim.lr=1e-4")
        table = tables.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"[config] expected the table [{section}] in {path} but got {table!r}")
        table[key] = _value(value.strip())
    return from_tables(tables, str(path))


def from_tables(tables: Mapping[str, Any], where: str) -> TrainConfig:
    """Tables of a TOML file -> the run. Unknown tables and fields are errors; absent ones have their defaults.

    Raises ConfigError.
    """
    unknown = sorted(set(tables) - {"model", *SECTIONS})
    if unknown:
        raise ConfigError(
            f"[config] expected the tables {', '.join(['model', *SECTIONS])} in {where} but got {', '.join(unknown)}"
        )
    return TrainConfig(
        model=_model(tables.get("model", {}), where),
        **{name: _section(kind, name, tables.get(name, {}), where) for name, kind in SECTIONS.items()},
    )


def to_toml(config: TrainConfig) -> str:
    """The run as a TOML file: every field, its help beside it. `from_tables` reads it back."""
    parts = []
    for name in ("model", *SECTIONS):
        section = getattr(config, name)
        parts.append(f"[{name}]")
        for f in fields(section):
            text = _MODEL_HELP[f.name] if name == "model" else f.metadata["help"]
            choices = get_args(get_type_hints(type(section))[f.name]) if name != "model" else ()
            text += f" One of: {', '.join(choices)}." if choices else ""
            parts.append(f"{f.name} = {_toml(getattr(section, f.name))}  # {text}")
        parts.append("")
    return "\n".join(parts)


def field_table() -> list[tuple[str, str, str]]:
    """(section.field, default, help) of every field, for `spade train --fields` and the document."""
    rows = [(f"model.{name}", "from the preset", text) for name, text in _MODEL_HELP.items()]
    for name, kind in SECTIONS.items():
        for f in fields(kind):
            choices = get_args(get_type_hints(kind)[f.name])
            text = f.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
            rows.append((f"{name}.{f.name}", _toml(f.default), text))
    return rows


def _model(table: Any, where: str) -> GeneratorConfig:
    if not isinstance(table, dict) or table.get("preset") not in PRESETS:
        got = table.get("preset") if isinstance(table, dict) else table
        raise ConfigError(f"[config] expected model.preset out of {', '.join(PRESETS)} in {where} but got {got!r}")
    return GeneratorConfig.from_dict(PRESETS[table["preset"]].to_dict() | table)


def _section(kind: type, name: str, table: Any, where: str) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(table, dict):
        raise ConfigError(f"[config] expected the table [{name}] in {where} but got {table!r}")
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"[config] expected the fields {', '.join(sorted(known))} in [{name}] of {where} "
            f"but got {', '.join(unknown)}; `spade train --fields` lists them all"
        )
    hints = get_type_hints(kind)
    return kind(**{key: _typed(f"{name}.{key}", value, hints[key]) for key, value in table.items()})


def _typed(name: str, value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    if choices:
        if value not in choices:
            raise ConfigError(f"[config] expected {name} to be one of {', '.join(choices)} but got {value!r}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"[config] expected {name} to be of type {kind.__name__} but got {value!r}")
    return value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: Any) -> str:
    # TOML has no surrogate pairs: text is written as it is.
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, float) else repr(value)


_AT_LEAST: dict[str, float] = {
    "networks.encoder_nf": 0,
    "networks.discriminator_nf": 1,
    "networks.discriminator_scales": 1,
    "networks.discriminator_layers": 1,
    "data.load_size": 1,
    "data.scenes": 1,
    "data.workers": 0,
    "optim.batch": 1,
    "optim.accumulate": 1,
    "optim.epochs": 0,
    "optim.decay_epochs": 0,
    "optim.lr": 0,
    "loss.feature_matching": 0,
    "loss.perceptual": 0,
    "loss.kl": 0,
    "loss.kl_warmup": 0,
    "loss.pixel": 0,
    "run.seed": 0,
    "run.threads": 0,
    "run.checkpoint_steps": 1,
    "run.keep": 1,
    "run.log_steps": 1,
    "run.sample_steps": 1,
    "run.samples": 1,
    "run.calibration": 1,
}


def _check(config: TrainConfig) -> None:
    for name, least in _AT_LEAST.items():
        section, key = name.split(".")
        value = getattr(getattr(config, section), key)
        if not value >= least:
            raise ConfigError(f"[config] expected {name} to be {least:g} or more but got {value!r}")
    for name in ("beta1", "beta2", "ema"):
        value = getattr(config.optim, name)
        if not 0 <= value < 1:
            raise ConfigError(f"[config] expected optim.{name} in 0..1, 1 excluded, but got {value!r}")
    if config.optim.epochs + config.optim.decay_epochs < 1:
        raise ConfigError("[config] expected optim.epochs + optim.decay_epochs to be 1 or more but got 0")
    if config.data.layout == "scenes" and config.model.preset != "demo":
        raise ConfigError(
            f"[config] expected model.preset 'demo' for the layout 'scenes', whose ids it has, "
            f"but got {config.model.preset!r}"
        )
    if config.data.layout != "scenes" and not config.data.root:
        raise ConfigError(
            f"[config] expected data.root to be the folder of the data set '{config.data.layout}' but got none; "
            "give it: --set data.root=DIR"
        )
    if config.run.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"[config] expected run.device auto, cpu or cuda but got {config.run.device!r}")
