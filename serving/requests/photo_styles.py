"""The style of a photo, by the encoder of the served weights. Knows no server."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.engines.choose import load_weights
from serving.requests.images import MAX_BYTES, MAX_FILE_PIXELS
from spade_core.files.weights import Weights
from spade_core.models.photo_style import style_from_image
from spade_core.photos import PhotoError, read_photo


class PhotoStyles:
    """Loads the encoder with the first photo, since many servers never see one.

    Args:
        weights, preset: arguments of `serving.engines.choose.load_weights`.
    """

    def __init__(self, weights: Path | None, preset: str) -> None:
        self._file, self._preset = weights, preset
        self._weights: Weights | None = None
        self._lock = threading.Lock()

    def style(self, photo: bytes) -> npt.NDArray[np.float32]:
        """The style [256] of an image file. Raises ValueError, also where the weights hold no encoder."""
        if len(photo) > MAX_BYTES:
            raise PhotoError(
                f"[photo] expected a file of at most {MAX_BYTES} bytes but got {len(photo)}; make it smaller"
            )
        with self._lock:
            if self._weights is None:
                self._weights = load_weights(self._file, self._preset)
        weights = self._weights
        if weights.encoder is None:
            raise ValueError(
                f"[photo] expected weights with a style encoder but those of model {weights.config.preset!r} have "
                "none; convert them with --encoder, or send a style or a seed"
            )
        return style_from_image(weights.encoder, read_photo(photo, max_pixels=MAX_FILE_PIXELS), weights.config)
