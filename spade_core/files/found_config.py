"""The configuration of published weights: facts that shapes tell, facts that the caller gives, and guesses."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isqrt
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from spade_core.config import PRESETS, UPSAMPLINGS, GeneratorConfig, check_fields
from spade_core.files.pickled import ConvertError

PUBLISHED = ("coco", "ade20k", "cityscapes")
Source = Literal["given", "file", "preset", "guess"]

_OVERRIDE = "override with --set FIELD=VALUE, --config FILE or --preset NAME"
_WIDTH_KEYS = tuple(f"{block}.conv_{i}.weight" for block in ("head_0", "G_middle_0", "G_middle_1") for i in (0, 1))
_CLASS_FIELDS = ("label_nc", "dont_care", "instance_edges")


@dataclass(frozen=True)
class Known:
    """The caller's knowledge of the weights, which goes before the shapes.

    Attributes:
        preset: name in `PRESETS` of the preset that gives what no shape tells; None: found from the input channels.
        fields: values of `GeneratorConfig` by field.
    """

    preset: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fact:
    """The value of one field of the configuration.

    Attributes:
        source: `given` by the caller, read off the `file`, taken from the caller's `preset`, or a `guess`.
        why: the reason, in a few words.
    """

    value: Any
    source: Source
    why: str


@dataclass(frozen=True)
class FoundConfig:
    """A configuration, and the fact behind each field that can differ between SPADE generators."""

    config: GeneratorConfig
    facts: Mapping[str, Fact]

    def __str__(self) -> str:
        lines = [f"  {name:14} {_shown(fact.value):10} {fact.source}: {fact.why}" for name, fact in self.facts.items()]
        guessed = [name for name, fact in self.facts.items() if fact.source == "guess"]
        if guessed:
            lines.append(f"No shape tells {', '.join(guessed)}. If a guess is wrong, {_OVERRIDE}.")
        if {"dont_care", "instance_edges"} & set(guessed) and self.config.semantic_nc <= 256:
            lines.append(f"Where all input channels are classes, for example: --set label_nc={self.config.semantic_nc}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Base:
    """The preset that stands in where neither the caller nor a shape tells a field."""

    config: GeneratorConfig
    source: Source
    why: str

    def fact(self, name: str) -> Fact:
        return Fact(getattr(self.config, name), self.source, self.why)


@dataclass(frozen=True)
class _Shapes:
    """The sizes that the weights tell. A missing or odd key gives None here; the check of all keys names the key."""

    channels: int | None
    kernel: int | None
    nf: int | None
    statistics: bool
    up_4: bool
    style: bool
    start: int | None  # pixels of the start map, where the generator has a style


def find_config(path: Path, tensors: Mapping[str, Tensor], known: Known) -> FoundConfig:
    """The configuration of a generator's weights `tensors`, which are named `path` in errors.

    A field comes from `known.fields`, else from the shapes, else from `known.preset`, else from the published preset
    with as many input channels: a guess. Raises ConvertError where nothing tells the classes, and for a value that no
    configuration allows, and ConfigError for a field that is unknown or of another type.
    """
    check_fields(known.fields)
    given = {name: Fact(value, "given", "your value") for name, value in known.fields.items()}
    shapes = _shapes(tensors)
    base = _base(path, shapes, known)
    found = _classes(path, shapes, base, given) | _from_shapes(shapes, base) | given
    found = _geometry(shapes, base, found) | found
    if "preset" not in given:
        same = all(found[name].value == getattr(base.config, name) for name in _CLASS_FIELDS)
        found["preset"] = base.fact("preset") if same else Fact("custom", "given", "your classes")
    values = {name: fact.value for name, fact in found.items()}
    try:
        config = GeneratorConfig.from_dict(values)
    except ValueError as error:
        raise ConvertError(
            f"[convert] expected '{path}' to be a variant of '{base.config.preset}' but got {error}; give a config: "
            f"{_OVERRIDE}"
        ) from None
    order = [f.name for f in fields(GeneratorConfig) if f.name not in ("architecture", "class_names")]
    return FoundConfig(config, {name: found[name] for name in order})


def _shapes(tensors: Mapping[str, Tensor]) -> _Shapes:
    shared = next((t.shape for k, t in tensors.items() if k.endswith(".mlp_shared.0.weight") and t.ndim == 4), None)
    widths = [tensors[k].shape[0] // 16 for k in _WIDTH_KEYS if k in tensors and tensors[k].ndim]
    nf = statistics.mode(widths) if widths else None
    fc = tensors.get("fc.weight")
    style = fc is not None and fc.ndim == 2
    return _Shapes(
        channels=None if shared is None else shared[1],
        kernel=None if shared is None else shared[2],
        nf=nf,
        statistics=any(key.endswith("running_mean") for key in tensors),
        up_4=any(key.startswith("up_4.") for key in tensors),
        style=style,
        start=fc.shape[0] // (16 * nf) if fc is not None and style and nf else None,
    )


def _base(path: Path, shapes: _Shapes, known: Known) -> _Base:
    name = known.preset if known.preset is not None else known.fields.get("preset")
    if name in PRESETS:
        return _Base(PRESETS[name], "preset", f"of '{name}'")
    classes = {field: known.fields[field] for field in _CLASS_FIELDS if field in known.fields}
    for published in PUBLISHED:
        config = PRESETS[published]
        same = all(getattr(config, field) == value for field, value in classes.items())
        if config.semantic_nc == shapes.channels and same:
            return _Base(config, "guess", f"as '{published}', which has {shapes.channels} input channels too")
    if not classes:
        names = ", ".join(f"{PRESETS[n].semantic_nc} ({n})" for n in PUBLISHED)
        raise ConvertError(
            f"[convert] expected one of the published numbers of input channels, {names}, but got {shapes.channels} "
            f"in '{path}'; give a config: classes, image size and upsampling cannot be read off these weights "
            f"(--set label_nc={shapes.channels or 'N'}, or --config FILE)"
        )
    return _Base(replace(PRESETS["ade20k"], preset="custom"), "guess", "the paper's usual value")


def _classes(path: Path, shapes: _Shapes, base: _Base, given: Mapping[str, Fact]) -> dict[str, Fact]:
    """Facts of label_nc, dont_care and instance_edges, whose sum is the number of input channels."""
    own = {name: given[name].value for name in _CLASS_FIELDS if name in given}
    preset = {name: getattr(base.config, name) for name in _CLASS_FIELDS}
    if not own or len(own) == len(_CLASS_FIELDS) or shapes.channels is None:
        return {name: base.fact(name) for name in _CLASS_FIELDS}
    if sum(preset.values()) == shapes.channels and preset == preset | own:
        return {name: base.fact(name) for name in _CLASS_FIELDS}
    splits = [
        split
        for split in _splits(shapes.channels)
        if split == split | own and not (split["dont_care"] and split["label_nc"] > 255)
    ]
    # A given label_nc with one channel more leaves open whether the channel is don't care or edges.
    if not splits or ("label_nc" in own and len(splits) > 1):
        got = ", ".join(f"{name} {_shown(value)}" for name, value in own.items())
        raise ConvertError(
            f"[convert] expected label_nc, and 1 each for dont_care and instance_edges, to add up to the "
            f"{shapes.channels} input channels of '{path}' but got {got}; give all three by --set"
        )
    split, sure = splits[0], len(splits) == 1
    why = f"{shapes.channels} input channels, less your values" if sure else "the simplest that fits your values"
    return {name: Fact(value, "file" if sure else "guess", why) for name, value in split.items()}


def _splits(channels: int) -> list[dict[str, int]]:
    """Every way in which `channels` can be classes, don't care and instance edges; the simplest first."""
    flags = ((False, False), (True, False), (False, True), (True, True))
    return [dict(zip(_CLASS_FIELDS, (channels - sum(pair), *pair), strict=True)) for pair in flags]


def _from_shapes(shapes: _Shapes, base: _Base) -> dict[str, Fact]:
    """Facts that a shape tells: nf, norm, spade_kernel, style and the architecture."""
    norm = base.config.norm if shapes.statistics else "instance"
    running = "running statistics are there" if shapes.statistics else "no running statistics"
    return {
        "nf": base.fact("nf") if shapes.nf is None else Fact(shapes.nf, "file", "width of the first convs / 16"),
        "norm": Fact(norm, "file", running),
        "spade_kernel": base.fact("spade_kernel")
        if shapes.kernel is None
        else Fact(shapes.kernel, "file", "size of mlp_shared"),
        "style": Fact(shapes.style, "file", "fc is a Linear" if shapes.style else "fc is a conv"),
        "architecture": Fact("spade", "file", "keys"),
    }


def _geometry(shapes: _Shapes, base: _Base, found: Mapping[str, Fact]) -> dict[str, Fact]:
    """Facts of upsampling, height and width. With a style, fc tells the number of pixels of the start map."""
    height, width = (found[name].value if name in found else None for name in ("height", "width"))
    facts = {name: base.fact(name) for name in ("upsampling", "height", "width")}
    if shapes.up_4:
        facts["upsampling"] = Fact("most", "file", "up_4 is there")
    elif shapes.start and height is not None and width is not None:
        fitting = [name for name, n in UPSAMPLINGS.items() if height * width == shapes.start * 4**n and name != "most"]
        if fitting:
            facts["upsampling"] = Fact(fitting[0], "file", "your size over fc's start map")
    factor = 2 ** UPSAMPLINGS[found.get("upsampling", facts["upsampling"]).value]
    if not shapes.start or (height is not None and width is not None):
        return facts
    if height is not None or width is not None:
        name, side = ("height", width) if height is None else ("width", height)
        other, rest = divmod(shapes.start * factor**2, max(1, int(side or 0)))
        return facts | ({} if rest else {name: Fact(other, "file", "fc's start map over your value")})
    start_height = _whole_root(shapes.start * base.config.height, base.config.width)
    if start_height is not None and start_height * factor != base.config.height:
        why = f"fc's start map, at the aspect of '{base.config.preset}'"
        size = {"height": start_height * factor, "width": shapes.start // start_height * factor}
        facts |= {name: Fact(value, "file", why) for name, value in size.items()}
    return facts


def _whole_root(numerator: int, denominator: int) -> int | None:
    """The square root of a fraction, or None where the root is no whole number."""
    root = isqrt(numerator // denominator)
    return root if root and root * root * denominator == numerator else None


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
