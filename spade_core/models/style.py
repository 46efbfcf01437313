"""Style vectors: sampled from a seed, and checked. Needs no PyTorch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.types import Style


def style_from_seed(seed: int) -> npt.NDArray[np.float32]:
    """Sample the style [256] of a seed >= 0 from the standard normal: the same on every engine, client and machine."""
    if seed < 0:
        raise ValueError(f"[style] expected a seed of 0 or more but got {seed}")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(STYLE_DIM, dtype=np.float32)


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
