"""Brings a label map and its image to the model's size together: NEAREST for labels, bicubic for images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import resize_nearest_centred
from spade_core.photos import resize_photo


@dataclass(frozen=True)
class Pixels:
    """One example. The image of an example as read may have another size than the maps; `resized` gives all one size.

    Attributes:
        labels: uint8 [H, W].
        instances: int32 [H, W] or None.
        image: RGB uint8 [h, w, 3], of the maps' aspect.
    """

    labels: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32] | None
    image: npt.NDArray[np.uint8]


def preprocess(
    pixels: Pixels, mode: str, load_size: int, flip: bool, config: GeneratorConfig, random: np.random.Generator
) -> Pixels:
    """Bring an example to the model's size by one of the modes; where `flip`, mirror one example in two.

    Modes:
        resize_and_crop: resize to load_size wide at the model's aspect, then crop at random.
        crop: crop at random.
        scale_width, scale_shortside: resize the width or the shorter side to load_size; the aspect stays, and the size
            is rounded to one that the model takes.
        scale_width_and_crop, scale_shortside_and_crop: the same without rounding, then crop at random.
        fixed: resize to the model's size.
        none: resize to the nearest size that the model takes.

    An example smaller than the crop is padded with zeros, right and below: a black image of label 0.
    """
    height, width = _target(pixels.labels.shape, mode, load_size, config)
    pixels = resized(pixels, height, width)
    if mode.endswith("crop"):
        pixels = _cropped(pixels, config, random)
    if flip and random.random() < 0.5:
        pixels = _map(pixels, lambda a: a[:, ::-1])
    return _map(pixels, np.ascontiguousarray)


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize an example to height x width: labels and instances by NEAREST, the image by bicubic."""
    image = resize_photo(pixels.image, height, width)
    instances = None if pixels.instances is None else resize_nearest_centred(pixels.instances, height, width)
    return Pixels(resize_nearest_centred(pixels.labels, height, width), instances, image)


def _target(shape: tuple[int, ...], mode: str, load_size: int, config: GeneratorConfig) -> tuple[int, int]:
    height, width = shape[0], shape[1]
    if mode == "resize_and_crop":
        return round(load_size * config.height / config.width), load_size
    if mode == "fixed":
        return config.height, config.width
    if mode.startswith("scale_width"):
        height, width = round(height * load_size / width), load_size
    elif mode.startswith("scale_shortside"):
        short = min(height, width)
        height, width = round(height * load_size / short), round(width * load_size / short)
    if mode.endswith("crop"):
        return height, width
    step = 2**config.upsamplings
    return max(step, round(height / step) * step), max(step, round(width / step) * step)


def _cropped(pixels: Pixels, config: GeneratorConfig, random: np.random.Generator) -> Pixels:
    height, width = pixels.labels.shape
    below, right = max(0, config.height - height), max(0, config.width - width)
    if below or right:
        pixels = _map(pixels, lambda a: np.pad(a, [(0, below), (0, right)] + [(0, 0)] * (a.ndim - 2)))
        height, width = pixels.labels.shape
    top = int(random.integers(height - config.height + 1))
    left = int(random.integers(width - config.width + 1))
    return _map(pixels, lambda a: a[top : top + config.height, left : left + config.width])


def _map(pixels: Pixels, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Pixels:
    instances = None if pixels.instances is None else change(pixels.instances)
    return Pixels(change(pixels.labels), instances, change(pixels.image))
