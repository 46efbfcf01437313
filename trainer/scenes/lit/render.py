"""A label map of demo classes -> an image in the look `lit`, drawn at twice the size and brought down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from spade_core.maps.drawn import NAMES
from spade_core.types import Ids, Map
from trainer.scenes.canvas import ID, At, canvas
from trainer.scenes.lit import built, land, plants
from trainer.scenes.lit.relief import blurred, offset, rough, sampled
from trainer.scenes.lit.sky import sky
from trainer.scenes.lit.stage import Stage, stage
from trainer.scenes.lit.water import water
from trainer.scenes.noise import Floats
from trainer.scenes.styles import Palette

OVERSAMPLING = 2
_RAGGED = {"tree": 0.011, "flower": 0.008, "grass": 0.006, "hill": 0.006, "rock": 0.003, "snow": 0.004, "sand": 0.003}
_SURFACES: dict[str, Callable[[Stage, At], Floats]] = {
    "mountain": land.mountain, "hill": land.hill, "grass": land.grass, "sand": land.sand, "snow": land.snow,
    "road": land.road, "rock": land.rock, "tree": plants.tree, "flower": plants.flower, "house": built.house,
    "roof": built.roof, "boat": built.boat,
}  # fmt: skip


def render_lit(labels: Map, instances: Ids, palette: Palette, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Demo ids uint8 and instances int32, [2 H, 2 W] each -> RGB uint8 [H, W, 3]."""
    frost = float(np.clip(palette.snow * 1.25, 0, 1))
    palette = seasonal(palette, random)
    shore, labels = _runs_above(labels == ID["water"]), _ragged(labels, random)
    c = canvas(labels, instances, palette, random)
    s = stage(c, labels, frost)
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(len(NAMES) + 1))
    where = {name: order[bounds[i] : bounds[i + 1]] for i, name in enumerate(NAMES)}
    above = np.concatenate([where[name] for name in ("sky", "sun", "cloud")])
    if len(above):
        c.image[above] = sky(s, labels, above)
    for name, surface in _SURFACES.items():
        if len(where[name]):
            c.image[where[name]] = surface(s, where[name])
    if len(where["water"]):
        c.image[where["water"]] = water(s, where["water"], labels, shore)
    return _developed(s)


def seasonal(palette: Palette, random: np.random.Generator) -> Palette:
    """Seasons further apart: autumn's trees differ from each other, winter's air is pale."""
    if palette.snow > 0.5:
        return replace(palette, sun=(1.0, 0.95, 0.84), foliage=(0.16, 0.20, 0.18), hill=(0.40, 0.42, 0.43))
    red, green, _ = palette.foliage
    if red > 1.4 * green:  # autumn
        turned = float(random.uniform(0.75, 1.25))
        return replace(palette, foliage=(0.62, 0.30 * turned, 0.07), hill=(0.52, 0.38 * turned, 0.15))
    return palette


def _ragged(labels: Map, random: np.random.Generator) -> Map:
    """The map with leaves and blades at the outlines of what grows: each pixel takes the label of a near one."""
    height, width = labels.shape
    rows, columns = np.indices(labels.shape)
    dx, dy = offset(random)
    scale = 512 / height * 1.1
    field = sampled(rough(0.9, 41), columns.ravel() * scale + dx, rows.ravel() * scale + dy)
    reach = np.zeros(len(NAMES), np.float32)
    for name, share in _RAGGED.items():
        reach[ID[name]] = share * height
    # The reach follows the rougher of the classes about a pixel, so both sides of an outline move together.
    far = blurred(reach[labels] / height * 40, height / 90).ravel() * height / 40
    x = np.clip(np.round(columns.ravel() + field[:, 0] * far), 0, width - 1).astype(np.int64)
    y = np.clip(np.round(rows.ravel() + np.roll(field[:, 0], 97) * far), 0, height - 1).astype(np.int64)
    moved = labels[y, x].reshape(labels.shape)
    may = np.zeros(len(NAMES), bool)
    may[[ID[name] for name in (*_RAGGED, "sky", "mountain", "water")]] = True
    ragged: Map = np.where(may[labels] & may[moved], moved, labels)
    return ragged


def _runs_above(water: npt.NDArray[np.bool_]) -> Floats:
    """Rows from the last other pixel above to each pixel, flat: the shore of the map is smoother than a ragged one."""
    rows = np.arange(len(water))[:, None]
    found: Floats = (rows - np.maximum.accumulate(np.where(water, -1, rows), axis=0)).astype(np.float32)
    return found.ravel()


def _developed(s: Stage) -> npt.NDArray[np.uint8]:
    """What a camera adds: glare, a film's curve, the lens's falloff, and grain."""
    c = s.canvas
    n = OVERSAMPLING
    height, width = c.height // n, c.width // n
    image = c.image.reshape(height, n, width, n, 3).mean((1, 3))
    bright = np.clip(image.mean(-1) - 0.82, 0, 1)
    if bright.any():
        image = image + 0.9 * blurred(bright * 2, height / 40)[..., None] * np.array(c.palette.sun, np.float32) * 0.35
    image = np.clip(image, 0, None)
    image = image * (1.12 - 0.2 * image.clip(0, 0.5))  # the exposure of a day's photo
    image = image * (1 + image * 0.18) / (1 + image * 0.30)  # highlights bend instead of clipping
    y, x = np.indices((height, width), np.float32) / height
    falloff = 1 - 0.10 * ((x - width / height / 2) ** 2 + (y - 0.5) ** 2)
    grain = c.random.normal(0, 0.005, (height, width, 1)) + c.random.normal(0, 0.002, (height, width, 3))
    pixels: npt.NDArray[np.uint8] = (np.clip(image * falloff[..., None] + grain, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels
