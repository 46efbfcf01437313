"""Style vectors taken from a photo. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kernels.layouts import Float32
from spade_core.config import GeneratorConfig
from spade_core.models.encode import encode
from spade_core.models.style import style_from_seed
from spade_core.photos import resize_photo


def style_from_image(
    encoder: Mapping[str, Float32], photo: npt.NDArray[np.uint8], config: GeneratorConfig, seed: int | None = None
) -> npt.NDArray[np.float32]:
    """Encode an RGB photo uint8 [H, W, 3] as a style [256]: the mean or, with a seed, a sample around the mean.

    As in training, bicubic resizes the photo to the model's size first. The encoder's own bilinear resize picks single
    pixels of a large photo, so its grain would count as style. A sample is mean + exp(log_variance / 2) * eps, eps the
    style of the seed (SPADE paper, appendix A; Kingma and Welling, arXiv 1312.6114, section 2.4). `encoder` holds the
    arrays of a `Weights`. Raises ValueError.
    """
    if photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"[style] expected an RGB image [H, W, 3] but got shape {photo.shape}")
    if photo.dtype != np.uint8:
        raise ValueError(f"[style] expected an RGB image of dtype uint8 but got {photo.dtype}")
    small = resize_photo(photo, config.height, config.width)
    mean, log_variance = encode(encoder, (small.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1))
    return mean if seed is None else mean + np.exp(0.5 * log_variance) * style_from_seed(seed)
