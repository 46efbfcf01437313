"""Styles as JSON: a seed, a vector, a name, or a mixture of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spade_core.config import STYLE_DIM
from spade_core.models.style import style_from_seed

MOST_SEED = 2**63 - 1
_FORMS = '{"seed": 7}, {"name": "noon"}, {"vector": [256 numbers]} or {"from": style, "to": style, "mix": 0.5}'
Vectors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Style:
    """A style: float32 [256], and the seed where it is nothing but a seed's."""

    vector: npt.NDArray[np.float32]
    seed: int | None = None


def read_style(value: Any, named: Vectors, depth: int = 1) -> Style:
    """Read a style from JSON. `named` are the styles of the weights. Raises ValueError, which says what is wrong.

    A mixture goes along the great circle between its two styles, since a style drawn from the standard normal has a
    length of about 16 and a straight line would pass through shorter, duller ones (K. White, arXiv 1609.04468).
    """
    match value:
        case {"seed": int(seed), **rest} if not rest and not isinstance(seed, bool) and 0 <= seed <= MOST_SEED:
            return Style(style_from_seed(seed), seed)
        case {"vector": list(numbers), **rest} if not rest:
            return Style(_vector(numbers))
        case {"name": str(name), **rest} if not rest:
            if name not in named:
                raise ValueError(f"[style] expected a name out of {', '.join(named) or 'none'} but got {name!r:.50}")
            return Style(named[name])
        case {"from": start, "to": end, "mix": float() | int() as mix, **rest} if not rest and depth and 0 <= mix <= 1:
            first, second = (read_style(one, named, 0).vector for one in (start, end))
            return Style(between(first, second, mix))
    raise ValueError(f"[style] expected {_FORMS} but got {value!r:.200}")


def between(start: npt.NDArray[np.float32], end: npt.NDArray[np.float32], mix: float) -> npt.NDArray[np.float32]:
    """Spherical interpolation of two styles [256]: `start` at mix 0, `end` at mix 1."""
    lengths = float(np.linalg.norm(start)) * float(np.linalg.norm(end))
    angle = np.arccos(np.clip(np.dot(start, end) / lengths, -1, 1)) if lengths else 0.0
    if np.sin(angle) < 1e-4:  # nearly one direction, or opposite ones: a straight line
        return (start * np.float32(1 - mix) + end * np.float32(mix)).astype(np.float32)
    weights = np.sin([(1 - mix) * angle, mix * angle]) / np.sin(angle)
    mixed: npt.NDArray[np.float32] = (weights[0] * start + weights[1] * end).astype(np.float32)
    return mixed


def style_tensors(styles: list[Style]) -> dict[str, npt.NDArray[Any]]:
    """The inputs of model `spade` for a style per map: seeds where all of them are seeds, else vectors."""
    if all(style.seed is not None for style in styles):
        return {"seed": np.array([[style.seed] for style in styles], np.int64)}
    return {"style": np.stack([style.vector for style in styles])}


def _vector(numbers: list[Any]) -> npt.NDArray[np.float32]:
    if len(numbers) != STYLE_DIM:
        raise ValueError(f"[style] expected a vector of {STYLE_DIM} numbers but got {len(numbers)}")
    for i, number in enumerate(numbers):
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < 1e6:
            raise ValueError(f"[style] expected finite numbers below a million but got {number!r:.50} at entry {i}")
    return np.array(numbers, np.float32)
