"""Style vectors taken from a photo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from spade_core.config import GeneratorConfig
from spade_core.models.encoder import StyleEncoder
from spade_core.models.style import style_from_seed
from spade_core.photos import resize_photo


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
