"""Water: it mirrors the picture above it, the more the flatter one looks, and waves shake the mirror."""

from __future__ import annotations

import numpy as np

from spade_core.maps.drawn import NAMES
from spade_core.types import Map
from trainer.scenes.canvas import At, mix, smooth
from trainer.scenes.lit.relief import offset, rough, sampled
from trainer.scenes.lit.sky import air
from trainer.scenes.lit.stage import Stage
from trainer.scenes.noise import Floats

_TALL = np.isin(NAMES, ("tree", "house", "roof", "boat", "rock", "flower"))
_FAR = np.isin(NAMES, ("sky", "sun", "cloud", "mountain", "hill", "snow", "tree", "house", "roof"))


def water(s: Stage, at: At, labels: Map, depth: Floats) -> Floats:
    """Colours [n, 3] of water, once the rest of the picture is drawn.

    Args:
        labels: the map [H, W].
        depth: rows from the far shore to each pixel, [H * W].
    """
    c = s.canvas
    near, far = c.depth[at], s.distance[at]
    dx, dy = offset(c.random)
    calm = float(c.random.uniform(0.35, 1.0))
    waves = sampled(rough(1.5, 31), (c.x[at] - 0.5) * (far * 0.5 + 3) * 26 + dx, far * 260 + dy)
    fine = np.clip(c.height / (far * 90), 0.15, 1)
    slope_x, slope_y = waves[:, 1] * fine * calm, waves[:, 2] * fine * calm
    row, column = np.divmod(at, c.width)
    # Waves tilt the mirror: it shows a place higher or lower in the picture, and little to the side.
    reach = (0.012 + 0.10 * near) * c.height
    side = np.clip(np.round(column + slope_x * reach * 1.3), 0, c.width - 1).astype(np.int64)
    found = air(c, c.x[at], np.clip(c.horizon * (1 - near * 0.9), 0, 1))
    # What is far is mirrored at the horizon; what stands at the shore, at the shore. Flat banks show nowhere.
    for axis, shown in ((c.horizon * c.height, _FAR), (row - depth[at] - 0.5, _TALL)):
        mirrored = np.clip(np.round(2 * axis - row - slope_y * reach * 2.4), 0, c.height - 1).astype(np.int64)
        place = mirrored * c.width + side
        found = np.where(shown[labels.ravel()[place]][:, None], c.image[place], found)
    grazing = np.clip(0.80 - 0.42 * near + 0.55 * slope_y, 0.25, 0.92)
    deep = s.lit(np.array(c.palette.water, np.float32) * (1 + 0.18 * waves[:, :1]), 0.55)
    colour = mix(deep, found, grazing)
    if c.sun is not None:
        path = np.exp(-(((c.x[at] - c.sun[0]) / (0.025 + 0.13 * near)) ** 2))
        glint = path * smooth(slope_y * 3.0 - 0.55 + 0.35 * (1 - near)) * (0.95 - 0.35 * c.palette.night)
        colour = mix(colour, np.array(c.palette.sun, np.float32), glint)
    bank = np.exp(-depth[at] / (0.008 * c.height)) * 0.55  # the shore's own shade at the water's edge
    colour = colour * (1 - bank)[:, None]
    foam = smooth((0.010 + 0.006 * waves[:, 0] - c.below[at]) / 0.006) * 0.5
    foam = foam * (row + c.below[at] * c.height < c.height - 1.5)  # the picture's edge is no shore
    return s.hazed(mix(colour, np.array(c.palette.cloud_lit, np.float32) * 0.9, foam), 0.7 * (1 - near) ** 4)
