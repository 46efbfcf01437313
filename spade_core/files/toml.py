"""TOML files and `FIELD=VALUE` texts of a command line, with errors that name the file or the text."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from spade_core.config import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and fields of a TOML file. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"[config] expected a readable TOML file but got '{path}': {error}") from None


def toml_value(text: str) -> Any:
    """The value of `text` as in TOML; text that is no TOML value is a bare string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
