"""Trees and flowers: clumps of leaves in the light, gaps in the dark."""

from __future__ import annotations

import numpy as np

from trainer.scenes.canvas import At, mix, smooth
from trainer.scenes.lit.relief import clumps, rough
from trainer.scenes.lit.stage import Stage
from trainer.scenes.noise import Floats

_PETALS = ((0.86, 0.30, 0.52), (0.94, 0.78, 0.20), (0.94, 0.93, 0.95), (0.52, 0.34, 0.76), (0.82, 0.18, 0.14))
_BARK = np.array([0.27, 0.20, 0.15], np.float32)
_SNOW = np.array([0.93, 0.95, 1.0], np.float32)


def tree(s: Stage, at: At) -> Floats:
    """Boughs at a coarse scale, leaves at a fine one; the crown is round, its inside and its foot are dark."""
    c = s.canvas
    size, width = c.above[at] + c.below[at] + 1e-3, c.left[at] + c.right[at] + 1e-3
    x, y = 2 * c.left[at] / width - 1, 1 - 2 * c.above[at] / size
    bough, bough_light = s.upright(clumps(21), at, 130, 7.0)
    leaf, leaf_light = s.upright(clumps(22), at, 420, 2.4)
    hue = s.upright(rough(2.2, 23), at, 45, 1.0)[0]
    base = np.array(c.palette.foliage, np.float32)
    albedo = mix(base * [1.75, 1.42, 0.95], base * [0.95, 1.10, 1.15], smooth(0.5 + 0.38 * hue + 0.14 * leaf))
    albedo = albedo * (1 + 0.22 * leaf)[:, None]
    albedo = mix(albedo, _SNOW, smooth(1.25 * s.frost - 0.62 + 0.30 * y + 0.30 * bough + 0.22 * leaf) * s.frost)
    crown = 0.42 + 0.34 * y * s.sun[1] + 0.42 * x * s.sun[0]
    light = crown + 0.60 * (bough_light - 0.45) + 0.42 * (leaf_light - 0.45)
    gaps = smooth(0.85 + 0.55 * bough + 0.30 * leaf)
    found = s.lit(albedo, light * gaps, (0.45 + 0.35 * smooth(0.6 + 0.6 * y)) * (0.45 + 0.55 * gaps))
    narrow = (width < 0.030) & (c.above[at] > 1.6 * c.below[at]) & (c.above[at] > 0.03)
    bark = s.lit(_BARK * (1 + 0.25 * leaf)[:, None], 0.35 + 0.4 * x * s.sun[0], 0.7)
    found = np.where(narrow[:, None], bark, found)
    return s.hazed(found, 0.55 * (1 - np.clip(size / 0.16, 0, 1)))


def flower(s: Stage, at: At) -> Floats:
    """Blossoms of two kinds over dark stems and leaves."""
    c = s.canvas
    first, second = c.random.choice(len(_PETALS), 2, replace=False)
    leaf, leaf_light = s.upright(clumps(24), at, 420, 2.0)
    green = np.array(c.palette.grass, np.float32) * 0.72 * (1 + 0.25 * leaf)[:, None]
    dots, dot_light = s.upright(rough(0.9, 25), at, 380, 2.4)
    kind = s.upright(rough(1.6, 26), at, 90, 1.0)[0]
    petals = np.where((kind > 0)[:, None], np.array(_PETALS[first]), np.array(_PETALS[second])).astype(np.float32)
    buried = float(np.clip(1.6 * s.frost - 0.4, 0, 0.85))
    petals, green = mix(petals, _SNOW, buried), mix(green, _SNOW, buried)
    petals = petals * (1 + 0.15 * c.noise(at, 0.4, 500))[:, None]
    bloom = smooth(1.7 * dots - 0.35)
    light = 0.55 + 0.40 * (leaf_light - 0.45) * (1 - bloom) + (0.35 + 0.4 * (dot_light - 0.45)) * bloom
    return s.lit(mix(green, petals, bloom), light, 0.65 + 0.35 * bloom, at)
