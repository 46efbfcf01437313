"""A run's configuration as a TOML file: reading, writing, and the list of all fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from spade_core.config import CUSTOM, MAX_CLASSES, PRESETS, ConfigError, GeneratorConfig, custom_preset
from spade_core.files.toml import read_toml, toml_value
from trainer.config import (
    DataConfig,
    LossConfig,
    NetworkConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    ValidationConfig,
)

SECTIONS: dict[str, type] = {
    "networks": NetworkConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "loss": LossConfig,
    "validation": ValidationConfig,
    "run": RunConfig,
}
_MODEL_HELP = {
    "preset": "Gives the fields of this table that are absent: coco, ade20k, cityscapes, demo; custom: own classes.",
    "label_nc": "Classes in a label map file, ids 0 .. label_nc - 1.",
    "dont_care": "Pixel value 255 is a class of its own.",
    "instance_edges": "The edges of instance maps are an input.",
    "height": "Height of the image, pixels.",
    "width": "Width of the image, pixels.",
    "nf": "Feature maps at full width; 16 nf at the smallest.",
    "upsampling": "x2 steps: normal 5, more 6, most 7.",
    "norm": "Norm inside SPADE: instance, batch (statistics of each process), syncbatch (of all processes).",
    "spade_kernel": "Size of SPADE's convs: 1, 3 or 5.",
    "style": "Start from a style vector, with a style encoder; false: start from the label map.",
    "architecture": "spade, or a baseline of the paper: concat, pix2pixhd, pix2pixhd-spade.",
    "classes": "Names of own classes, by id from 0 on; for the preset custom, which counts them in place of label_nc.",
}
_KEYS = {"class_names": "classes"}  # fields of the model with another name in a file


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a TOML file, then `section.field=value` overrides (values as in TOML, or bare text). Raises ConfigError."""
    tables = read_toml(path)
    for override in overrides:
        name, separator, value = override.partition("=")
        section, dot, key = name.strip().partition(".")
        if not separator or not dot or not key:
            raise ConfigError(f"[config] expected --set section.field=value but got {override!r}; say optim.lr=1e-4")
        table = tables.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"[config] expected the table [{section}] in {path} but got {table!r}")
        table[key] = toml_value(value.strip())
    return from_tables(tables, str(path))


def from_tables(tables: Mapping[str, Any], where: str) -> TrainConfig:
    """Tables of a TOML file -> the run. Unknown tables and fields are errors; absent fields have their defaults.

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
    """The run as a TOML file: every field, with its help beside it. `from_tables` reads the file back."""
    parts = []
    for name in ("model", *SECTIONS):
        section = getattr(config, name)
        parts.append(f"[{name}]")
        for f in fields(section):
            # A preset has its own classes; own data has its names in place of their number.
            if name == "model" and f.name == ("label_nc" if section.class_names else "class_names"):
                continue
            key = _KEYS.get(f.name, f.name)
            text = _MODEL_HELP[key] if name == "model" else f.metadata["help"]
            choices = get_args(get_type_hints(type(section))[f.name]) if name != "model" else ()
            text += f" One of: {', '.join(choices)}." if choices else ""
            parts.append(f"{key} = {_toml(getattr(section, f.name))}  # {text}")
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
    name = table.get("preset") if isinstance(table, dict) else table
    if not isinstance(table, dict) or name not in (*PRESETS, CUSTOM):
        known = ", ".join((*PRESETS, CUSTOM))
        raise ConfigError(f"[config] expected model.preset out of {known} in {where} but got {name!r}")
    given = {key: value for key, value in table.items() if key != "classes"}
    if name == CUSTOM:
        return GeneratorConfig.from_dict(custom_preset(_classes(table.get("classes"), where)).to_dict() | given)
    if "classes" in table:
        raise ConfigError(
            f"[config] expected no model.classes for the preset {name!r}, which has its own, in {where} but got "
            f"{table['classes']!r}; say preset = {_toml(CUSTOM)}"
        )
    return GeneratorConfig.from_dict(PRESETS[name].to_dict() | given)


def _classes(names: Any, where: str) -> list[str]:
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_CLASSES:
        got = f"{len(names)} names" if isinstance(names, list) else repr(names)
        raise ConfigError(
            f"[config] expected model.classes to be a list of 1 to {MAX_CLASSES} names for the preset {CUSTOM!r} in "
            f'{where} but got {got}; name each id from 0 on: classes = ["sky", "grass"]'
        )
    return names


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


def _toml(value: Any) -> str:
    # TOML has no surrogate pairs: text is written as it is.
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, float) else repr(value)
