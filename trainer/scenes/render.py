"""A label map of demo classes -> an image: every class has a surface, in the scene's light, faded by distance.

The image depends on the two maps, the palette and the random generator only, so any map in demo ids can be rendered.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spade_core.maps.drawn import NAMES
from spade_core.types import Ids, Map
from trainer.scenes.canvas import ID, Canvas, canvas
from trainer.scenes.styles import Palette
from trainer.scenes.surfaces import SURFACES

_STANDING = ("tree", "house", "roof", "rock")


def render(labels: Map, instances: Ids, palette: Palette, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Demo ids uint8 [H, W] and instances int32 [H, W] -> RGB uint8 [H, W, 3]."""
    scene = canvas(labels, instances, palette, random)
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(len(NAMES) + 1))
    where = {name: order[bounds[i] : bounds[i + 1]] for i, name in enumerate(NAMES)}
    for name, surface in SURFACES.items():  # water comes last: it mirrors the other surfaces
        if len(where[name]):
            scene.image[where[name]] = surface(scene, where[name])
    _shadows(scene, labels)
    return _developed(scene, labels)


def _shadows(s: Canvas, labels: Map) -> None:
    """Darken the ground beside standing things, on the side away from the light."""
    standing = np.isin(labels, [ID[name] for name in _STANDING])
    open_ground = np.isin(labels, [ID[name] for name in ("grass", "sand", "snow", "road", "flower")])
    image = s.image.reshape(s.height, s.width, 3)
    cast = np.zeros(labels.shape, bool)
    for step in (1, 2, 3):
        down, across = round(0.006 * step * s.height) + 1, round(-s.light_from * 0.018 * step * s.height)
        cast[down:] |= np.roll(standing, across, axis=1)[:-down]
    image[cast & open_ground] *= 0.72


def _developed(s: Canvas, labels: Map) -> npt.NDArray[np.uint8]:
    """Soften the edges between classes, add the grain of a camera, and round."""
    image = s.image.reshape(s.height, s.width, 3)
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    image = np.where(edge[..., None], 0.35 * image + 0.65 * soft, image)
    grain = s.random.normal(0, 0.006, (s.height, s.width, 1)).astype(np.float32)
    pixels: npt.NDArray[np.uint8] = (np.clip(image + grain, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels
