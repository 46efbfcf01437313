"""Style vectors: sampled from a seed, or taken from a photo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.models.encoder import StyleEncoder
from spade_core.photos import resize_photo
from spade_core.types import Style


def style_from_seed(seed: int) -> npt.NDArray[np.float32]:
    """Sample the style [256] of a seed >= 0 from the standard normal: the same on every engine, client and machine."""
    if seed < 0:
        raise ValueError(f"[style] expected a seed of 0 or more but got {seed}")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(STYLE_DIM, dtype=np.float32)


def style_from_image(
    encoder: StyleEncoder, photo: npt.NDArray[np.uint8], config: GeneratorConfig, seed: int | None = None
) -> npt.NDArray[np.float32]:
    """Encode an RGB photo uint8 [H, W, 3] as a style [256]: the mean or, with a seed, a sample around the mean.

    As in training, bicubic resizes the photo to the model's size first. The encoder's own bilinear resize picks single
    pixels of a large photo, so its grain would count as style. A sample is mean + exp(log_variance / 2) * eps, eps the
    style of the seed (SPADE paper, appendix A; Kingma and Welling, arXiv 1312.6114, section 2.4). Raises ValueError.
    """
    if photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"[style] expected an RGB image [H, W, 3] but got shape {photo.shape}")
    if photo.dtype != np.uint8:
        raise ValueError(f"[style] expected an RGB image of dtype uint8 but got {photo.dtype}")
    with torch.inference_mode():
        small = resize_photo(photo, config.height, config.width)
        pixels = torch.from_numpy(small.astype(np.float32) / 127.5 - 1)
        mean, log_variance = encoder(pixels.permute(2, 0, 1)[None])
        z = mean
        if seed is not None:
            z = mean + torch.exp(0.5 * log_variance) * torch.from_numpy(style_from_seed(seed))
    style: npt.NDArray[np.float32] = z[0].numpy()
    return style


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
