"""Style vectors: sampled from a seed, kept under names, and checked. Needs no PyTorch."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.types import Style

STYLES = "styles"
"""The metadata field of a checkpoint that holds named styles, as `styles_text` writes them."""


def style_from_seed(seed: int) -> npt.NDArray[np.float32]:
    """Sample the style [256] of a seed >= 0 from the standard normal: the same on every engine, client and machine."""
    if seed < 0:
        raise ValueError(f"[style] expected a seed of 0 or more but got {seed}")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(STYLE_DIM, dtype=np.float32)


def styles_text(styles: Mapping[str, Style]) -> str:
    """Named styles, float32 [256] each, as JSON: the values are base64 of their bytes, little endian."""
    return json.dumps({name: base64.b64encode(one.astype("<f4").tobytes()).decode() for name, one in styles.items()})


def read_styles(text: str | None) -> dict[str, Style]:
    """The inverse of `styles_text`; none for None. Raises ValueError."""
    try:
        found = {
            str(name): np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
            for name, value in json.loads(text or "{}").items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"[style] expected named styles as JSON of base64 but got {text!r:.80} ({error})") from None
    for name, one in found.items():
        if one.shape != (STYLE_DIM,) or not np.isfinite(one).all():
            raise ValueError(f"[style] expected {STYLE_DIM} finite numbers for style {name!r} but got {one.size}")
    return found


def check_style(style: Style | None, batch: int, config: GeneratorConfig) -> Style | None:
    """Check the style of `batch` images: float32 [N, 256], or None where the model takes none. Raises ValueError."""
    if not config.style:
        if style is not None:
            raise ValueError(
                f"[synthesize] expected no style, since model {config.preset!r} has no style input; leave it out"
            )
        return None
    if style is None:
        raise ValueError(
            f"[synthesize] expected a style [{batch}, {STYLE_DIM}] but got none; take one from style_from_seed"
        )
    if style.shape != (batch, STYLE_DIM):
        raise ValueError(f"[synthesize] expected a style of shape [{batch}, {STYLE_DIM}] but got {list(style.shape)}")
    if not np.isfinite(style).all():
        row, column = np.argwhere(~np.isfinite(style))[0]
        raise ValueError(
            f"[synthesize] expected a finite style but got {style[row, column]} at item {row}, entry {column}"
        )
    return np.ascontiguousarray(style, dtype=np.float32)
