"""The configuration of a generator: one flat record, the architectures, and the table of named presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

Norm = Literal["instance", "batch", "syncbatch"]
Upsampling = Literal["normal", "more", "most"]

DEMO_WEIGHTS = Path(__file__).with_name("demo.safetensors")  # the trained model that ships: docs/demo-model.md

STYLE_DIM = 256
MAX_CLASSES = 256  # ids in a label map, which is uint8
MAX_PIXELS = 64_000_000  # of a label map, an instance map or a photo that is read from a file

UPSAMPLINGS: dict[Upsampling, int] = {"normal": 5, "more": 6, "most": 7}  # x2 steps of the paper's generator
DOWNSAMPLINGS = 4  # stride-2 convs of an encoder-decoder, which as many x2 steps undo


@dataclass(frozen=True)
class Architecture:
    """What a configuration of one architecture may ask for; `spade_core.models.registry` has the networks.

    Attributes:
        upsamplings: x2 steps from the smallest level to the image, for each allowed `upsampling`.
        style: the generator can start from a style vector.
        engines: the serving engines run the generator; others are trained and evaluated only.
        one_hot: the torch engine runs the generator too, in float32 on one-hot maps.
    """

    upsamplings: Mapping[Upsampling, int]
    style: bool
    engines: bool
    one_hot: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "spade": Architecture(UPSAMPLINGS, style=True, engines=True),
    "concat": Architecture(UPSAMPLINGS, style=True, engines=False),
    "pix2pixhd": Architecture({"normal": DOWNSAMPLINGS}, style=False, engines=False),
    "pix2pixhd-spade": Architecture({"normal": DOWNSAMPLINGS}, style=False, engines=False),
    "spadenet": Architecture({"normal": 0}, style=False, engines=False, one_hot=True),
    "module": Architecture({"normal": 0}, style=True, engines=False, one_hot=True),
}
"""Every architecture by name."""


class ConfigError(ValueError):
    """A generator configuration that cannot be built; the message holds the field and its value."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The architecture of one generator (SPADE paper, appendix A). Every field except `class_names` is required.

    Attributes:
        preset: the name in `PRESETS` of the preset this configuration started from, or any other name.
        label_nc: number of classes in a label map file, ids 0 .. label_nc - 1; at most 256, or 255 with dont_care.
        dont_care: pixel value 255 is a class of its own, with the id label_nc.
        instance_edges: the edges of an instance map are one more input channel, the last.
        height, width: size of the image in pixels.
        nf: feature maps at full width are nf, 2 nf, .. 16 nf.
        upsampling: number of x2 steps: normal 5, more 6, most 7 (an encoder-decoder: normal 4).
        norm: parameter-free norm inside SPADE.
        spade_kernel: size of SPADE's own convs, 1, 3 or 5.
        style: the generator starts from a style vector [256]; otherwise from the label map.
        architecture: a name in `ARCHITECTURES`: spade, or a baseline of the paper: concat (label map concatenated
            instead of SPADE), pix2pixhd, pix2pixhd-spade (SPADE in place of each norm of pix2pixhd); spadenet (of
            MONAI), or module, a network of one's own (`spade serve --model`).
        class_names: the name of each id 0 .. label_nc - 1 of own data (the preset `custom`); empty: as the preset says.
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
    architecture: str
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    @property
    def classes(self) -> int:
        """Number of label ids the network knows, don't care included."""
        return self.label_nc + int(self.dont_care)

    @property
    def semantic_nc(self) -> int:
        """Number of input channels: classes, don't care, edges."""
        return self.classes + int(self.instance_edges)

    @property
    def symbols(self) -> int:
        """Number of distinct (label, edge bit) pairs. The symbol after the last stands for "outside the image"."""
        return self.classes * (2 if self.instance_edges else 1)

    @property
    def upsamplings(self) -> int:
        """Number of x2 steps from the smallest level to the image."""
        return ARCHITECTURES[self.architecture].upsamplings[self.upsampling]

    @property
    def level_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every resolution level at the configured image size, smallest first."""
        return level_sizes(self.height, self.width, self.upsamplings)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON values."""
        return asdict(self) | {"class_names": list(self.class_names)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> GeneratorConfig:
        """The inverse of `to_dict`. Raises ConfigError, naming every unknown and missing field.

        Files written before there were baselines name no architecture; they hold SPADE generators. Files written before
        there were class names hold none.
        """
        values = {"architecture": "spade", "class_names": ()} | values
        if isinstance(values["class_names"], list):
            values["class_names"] = tuple(values["class_names"])
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


def check_fields(values: Mapping[str, Any]) -> None:
    """Check some fields of a GeneratorConfig: known names, and values of their types. Raises ConfigError."""
    hints = get_type_hints(GeneratorConfig)
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"[config] expected a field out of {', '.join(hints)} but got {name!r}")
        kind = get_origin(hints[name]) or hints[name]
        choices = get_args(hints[name]) if kind is Literal else ()
        if choices and value not in choices:
            raise ConfigError(f"[config] expected {name} to be one of {', '.join(choices)} but got {value!r}")
        kinds = (tuple, list) if kind is tuple else (kind,)  # JSON and TOML have lists in place of tuples
        if not choices and type(value) not in kinds:
            raise ConfigError(f"[config] expected {name} to be of type {kind.__name__} but got {value!r}")


def _check(config: GeneratorConfig) -> None:
    check_fields(asdict(config))
    most = MAX_CLASSES - int(config.dont_care)
    if not 1 <= config.label_nc <= most:
        reason = "labels are uint8, and 255 is don't care" if config.dont_care else "labels are uint8"
        raise ConfigError(f"[config] expected label_nc in 1..{most} ({reason}) but got {config.label_nc}")
    _check_class_names(config)
    if config.spade_kernel not in (1, 3, 5):
        raise ConfigError(f"[config] expected spade_kernel 1, 3 or 5 but got {config.spade_kernel}")
    if config.nf < 2 or config.nf % 2:
        raise ConfigError(f"[config] expected nf to be even and at least 2 but got {config.nf}")
    _check_architecture(config)
    level_sizes(config.height, config.width, config.upsamplings)


def _check_class_names(config: GeneratorConfig) -> None:
    names = config.class_names
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"[config] expected a name for each class but got {name!r} for id {i}; give it a name")
        if name in names[:i]:
            raise ConfigError(
                f"[config] expected each class to have a name of its own but got {name!r} for the ids "
                f"{names.index(name)} and {i}; rename one"
            )
    if names and len(names) != config.label_nc:
        raise ConfigError(
            f"[config] expected as many names as label_nc, {config.label_nc}, but got {len(names)}; "
            "name each id from 0 on, or leave label_nc out"
        )


def _check_architecture(config: GeneratorConfig) -> None:
    if config.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"[config] expected architecture to be one of {', '.join(ARCHITECTURES)} but got {config.architecture!r}"
        )
    architecture = ARCHITECTURES[config.architecture]
    if (config.style and not architecture.style) or config.upsampling not in architecture.upsamplings:
        style = "style true or false" if architecture.style else "style false"
        raise ConfigError(
            f"[config] expected {style} and upsampling {' or '.join(architecture.upsamplings)} for architecture "
            f"{config.architecture!r} but got style {config.style}, upsampling {config.upsampling!r}"
        )


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


CUSTOM = "custom"
"""The preset of own data: the paper's architecture for any list of class names."""


def custom_preset(class_names: Sequence[str]) -> GeneratorConfig:
    """The paper's generator for own classes, ids by position: 256x256, no style, no instance maps.

    Raises ConfigError.
    """
    return _preset(CUSTOM, len(class_names), False, False, class_names=tuple(class_names))


def preset(name: str) -> GeneratorConfig:
    """The preset called `name`. Raises ConfigError, listing the known names."""
    if name not in PRESETS:
        raise ConfigError(f"[config] expected a preset out of {', '.join(PRESETS)} but got {name!r}")
    return PRESETS[name]
