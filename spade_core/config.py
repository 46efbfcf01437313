"""What a SPADE generator is: one flat record, and the table of named presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

Norm = Literal["instance", "batch", "syncbatch"]
Upsampling = Literal["normal", "more", "most"]
Architecture = Literal["spade", "concat", "pix2pixhd", "pix2pixhd-spade"]

DEMO_WEIGHTS = Path(__file__).with_name("demo.safetensors")  # the trained model that ships: docs/demo-model.md

STYLE_DIM = 256
MAX_PIXELS = 64_000_000  # of a label map, an instance map or a photo that is read from a file

UPSAMPLINGS: dict[Upsampling, int] = {"normal": 5, "more": 6, "most": 7}
ENCODER_DECODERS = ("pix2pixhd", "pix2pixhd-spade")
DOWNSAMPLINGS = 4  # of the encoder-decoders, undone by as many x2 steps


class ConfigError(ValueError):
    """A generator configuration that cannot be built; the message holds the field and its value."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The architecture of one generator (SPADE paper, appendix A). Every field is required: nothing is implied.

    Attributes:
        preset: the name in `PRESETS` this came from, or any name of your own.
        label_nc: number of classes in a label map file, ids 0 .. label_nc - 1.
        dont_care: pixel value 255 is a class of its own, id label_nc.
        instance_edges: the edges of an instance map are one more input channel, the last.
        height, width: size of the image in pixels.
        nf: feature maps at full width are nf, 2 nf, .. 16 nf.
        upsampling: x2 steps: normal 5, more 6, most 7.
        norm: parameter-free norm inside SPADE.
        spade_kernel: size of SPADE's own convs, 1, 3 or 5.
        style: the generator starts from a style vector [256]; without it, from the label map.
        architecture: spade, or a baseline of the paper: concat (label map concatenated instead of SPADE), pix2pixhd,
            pix2pixhd-spade (SPADE in place of each of its norms); see `spade_core.baselines`.
    """

    preset: str
    label_nc: int
    dont_care: bool
    instance_edges: bool
    height: int
    width: int
    nf: int
    upsampling: Upsampling
    norm: Norm
    spade_kernel: int
    style: bool
    architecture: Architecture

    def __post_init__(self) -> None:
        _check(self)

    @property
    def classes(self) -> int:
        """Label ids the network knows, don't care included."""
        return self.label_nc + int(self.dont_care)

    @property
    def semantic_nc(self) -> int:
        """Input channels: classes, don't care, edges."""
        return self.classes + int(self.instance_edges)

    @property
    def symbols(self) -> int:
        """Distinct (label, edge bit) pairs. The symbol `symbols` itself stands for "outside the image"."""
        return self.classes * (2 if self.instance_edges else 1)

    @property
    def upsamplings(self) -> int:
        """Number of x2 steps from the smallest level to the image."""
        if self.architecture in ENCODER_DECODERS:
            return DOWNSAMPLINGS
        return UPSAMPLINGS[self.upsampling]

    @property
    def level_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every resolution level at the configured image size, smallest first."""
        return level_sizes(self.height, self.width, self.upsamplings)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> GeneratorConfig:
        """The inverse of `to_dict`. Raises ConfigError, naming every unknown and missing field.

        Files of before there were baselines say no architecture: they hold SPADE generators.
        """
        values = {"architecture": "spade"} | values
        known = {f.name for f in fields(GeneratorConfig)}
        unknown, missing = sorted(set(values) - known), sorted(known - set(values))
        if unknown or missing:
            raise ConfigError(
                f"[config] expected the fields {sorted(known)} but got unknown {unknown}, missing {missing}"
            )
        return GeneratorConfig(**values)


def level_sizes(height: int, width: int, upsamplings: int) -> tuple[tuple[int, int], ...]:
    """(height, width) of every level, smallest first: size / 2^n, .., size / 2, size. Raises ConfigError."""
    step = 2**upsamplings
    if height < step or width < step or height % step or width % step:
        raise ConfigError(
            f"[config] expected a height and width that are multiples of {step} (2^{upsamplings} upsamplings) "
            f"but got {height}x{width}; the nearest is {_round_to(height, step)}x{_round_to(width, step)}"
        )
    return tuple((height >> i, width >> i) for i in range(upsamplings, -1, -1))


def _round_to(value: int, step: int) -> int:
    return max(step, (value + step // 2) // step * step)


def _check(config: GeneratorConfig) -> None:
    for name, kind in get_type_hints(GeneratorConfig).items():
        value, choices = getattr(config, name), get_args(kind)
        if choices and value not in choices:
            raise ConfigError(f"[config] expected {name} to be one of {', '.join(choices)} but got {value!r}")
        if not choices and type(value) is not kind:
            raise ConfigError(f"[config] expected {name} to be of type {kind.__name__} but got {value!r}")
    if not 1 <= config.label_nc <= 255:
        raise ConfigError(f"[config] expected label_nc in 1..255 (labels are uint8) but got {config.label_nc}")
    if config.spade_kernel not in (1, 3, 5):
        raise ConfigError(f"[config] expected spade_kernel 1, 3 or 5 but got {config.spade_kernel}")
    if config.nf < 2 or config.nf % 2:
        raise ConfigError(f"[config] expected nf to be even and at least 2 but got {config.nf}")
    if config.architecture in ENCODER_DECODERS and (config.style or config.upsampling != "normal"):
        raise ConfigError(
            f"[config] expected style false and upsampling 'normal' of an encoder-decoder ({config.architecture}) but "
            f"got style {config.style}, upsampling {config.upsampling!r}; it starts from the label map at full size"
        )
    level_sizes(config.height, config.width, config.upsamplings)


def _preset(preset: str, label_nc: int, dont_care: bool, instance_edges: bool, **rest: Any) -> GeneratorConfig:
    paper: dict[str, Any] = {
        "height": 256,
        "width": 256,
        "nf": 64,
        "upsampling": "normal",
        "norm": "syncbatch",
        "spade_kernel": 3,
        "style": False,
        "architecture": "spade",
    }
    return GeneratorConfig(preset, label_nc, dont_care, instance_edges, **(paper | rest))


PRESETS: dict[str, GeneratorConfig] = {
    "coco": _preset("coco", 182, True, True),
    # The published weights read the raw PNG id as the channel: 0 unknown, 1 wall, .. 150.
    "ade20k": _preset("ade20k", 151, False, False),
    "cityscapes": _preset("cityscapes", 35, False, True, width=512, upsampling="more"),
    "demo": _preset("demo", 16, False, False, nf=16, style=True),
}


def preset(name: str) -> GeneratorConfig:
    """The preset called `name`. Raises ConfigError, listing the names there are."""
    if name not in PRESETS:
        raise ConfigError(f"[config] expected a preset out of {', '.join(PRESETS)} but got {name!r}")
    return PRESETS[name]
