"""Mountains, hills, fields, sand, snow, rock and roads."""

from __future__ import annotations

import numpy as np

from trainer.scenes.canvas import At, mix, smooth
from trainer.scenes.lit.relief import clumps, offset, ridges, rough, sampled
from trainer.scenes.lit.stage import Stage
from trainer.scenes.noise import Floats

_SNOW = np.array([0.94, 0.96, 1.0], np.float32)


def mountain(s: Stage, at: At) -> Floats:
    """Ridges and gullies; snow lies high, and less where it is steep; forest climbs from below."""
    c = s.canvas
    height, light = s.upright(ridges(1), at, 150, 9.0, 1.25)
    grain, fine = s.upright(rough(1.2, 2), at, 340, 3.0)
    rock = np.array([0.43, 0.39, 0.37], np.float32) + c.random.uniform(-0.03, 0.03, 3).astype(np.float32)
    albedo = rock * (1 + 0.10 * grain + 0.05 * height)[:, None]
    up = c.above[at]
    forest = smooth((up - 0.075 + 0.03 * grain) / 0.05) * (1 - 0.7 * s.frost)
    albedo = mix(albedo, np.array(c.palette.foliage, np.float32) * 0.8 + 0.03, forest * 0.75)
    line = c.random.uniform(-0.03, 0.05) + 0.3 * s.frost
    snow = smooth((line + 0.03 * grain + 0.02 * height - up) / 0.02) * smooth(0.75 + 0.5 * height)
    albedo = mix(albedo, _SNOW, snow)
    found = s.lit(albedo, 0.25 + 1.05 * light * 0.8 + 0.25 * (fine - 0.5), 0.75 + 0.25 * smooth(0.5 + 0.4 * height))
    return s.hazed(found, 0.85 + 0.9 * smooth((up - 0.02) / 0.18) * 0.6)


def hill(s: Stage, at: At) -> Floats:
    """Slopes covered with woods and meadows."""
    c = s.canvas
    wood, light = s.upright(clumps(3), at, 420, 2.6, 1.5)
    patch, roll = s.upright(rough(2.1, 4), at, 70, 5.0, 1.8)
    base = np.array(c.palette.hill, np.float32)
    foliage = np.array(c.palette.foliage, np.float32)
    woods = smooth(0.5 + 0.9 * patch)
    albedo = mix(base * [1.1, 1.08, 0.9], mix(base, foliage, 0.6), woods)
    albedo = albedo * (1 + 0.16 * wood * woods)[:, None]
    albedo = mix(albedo, _SNOW, _cover(s.frost, 0.35 * wood * (0.4 + woods) + 0.2 * patch - 0.45 * woods))
    lit = 0.30 + 0.60 * roll + (0.15 + 0.45 * woods) * (light - 0.45)
    return s.hazed(s.lit(albedo, lit, 0.9 - 0.2 * woods), 0.62)


def grass(s: Stage, at: At) -> Floats:
    """Tufts and blades near, patches far; the light plays over uneven ground."""
    c = s.canvas
    near = c.depth[at]
    patch, roll = s.level(rough(1.8, 7), at, 26, 1.3)
    tuft, tuft_light = s.level(clumps(8), at, 60, 0.8)
    lean = c.x[at] + 0.35 * c.y[at] * c.light_from  # blades lean with the wind
    dx, dy = offset(c.random)
    blade = sampled(rough(0.8, 16), lean * 470 + dx, c.y[at] * 210 + dy)[:, 0] * (0.25 + 0.75 * near)
    base = np.array(c.palette.grass, np.float32)
    base = base * 0.72 + base.mean() * 0.20 * np.array([1.15, 1.0, 0.75], np.float32)  # grass is never pure green
    albedo = mix(base * [0.84, 0.92, 0.88], base * [1.24, 1.10, 0.92], smooth(0.5 + 0.40 * patch + 0.10 * blade))
    dry = smooth(0.6 * c.ground(at, 1.9, 15) - 0.45) * 0.45
    albedo = mix(albedo, np.array([0.60, 0.52, 0.30], np.float32), dry)
    albedo = albedo * (1 + 0.10 * tuft + 0.12 * blade)[:, None]
    albedo = mix(albedo, _SNOW, _cover(s.frost, 0.30 * patch + 0.32 * blade * near + 0.16 * tuft))
    lit = 0.72 * roll + 0.22 * (tuft_light - 1) + 0.08 * blade
    return s.hazed(s.lit(albedo, lit, 0.92 + 0.10 * tuft, at), 0.75 * (1 - near) ** 3)


def sand(s: Stage, at: At) -> Floats:
    """Dunes, wind ripples and grains; wet and dark at the water's edge."""
    c = s.canvas
    dune, roll = s.level(rough(1.9, 9), at, 22, 1.6)
    ripple, fine = s.level(rough(1.1, 10), at, 90, 0.8)
    grains = c.noise(at, 0.2, 512)
    albedo = np.array([0.86, 0.74, 0.54], np.float32) * (1 + 0.05 * grains + 0.07 * dune + 0.04 * ripple)[:, None]
    albedo = mix(albedo, _SNOW, _cover(s.frost, 0.3 * dune + 0.1 * grains))
    return s.hazed(s.lit(albedo, 0.80 * roll + 0.35 * (fine - 1), 1.0, at), 0.7 * (1 - c.depth[at]) ** 3)


def snow(s: Stage, at: At) -> Floats:
    """Drifts of a field, bluish in the shade; above the horizon the snow of a summit."""
    c = s.canvas
    summit = c.y[at] < c.horizon
    _, high = s.upright(ridges(1), at, 150, 7.0, 1.25)
    drift, roll = s.level(rough(2.0, 11), at, 20, 2.4)
    crust, fine = s.level(rough(1.0, 12), at, 80, 0.5)
    sparkle = np.clip(c.noise(at, 0.0, 512) - 2.3, 0, 1) * 0.3 * c.depth[at]
    albedo = _SNOW * (1 + 0.02 * crust + sparkle)[:, None]
    lit = np.where(summit, 0.1 + 1.1 * high, 0.82 * roll + 0.3 * (fine - 1) + 0.04 * drift)
    return s.hazed(s.lit(albedo, lit, 1.0, at), np.where(summit, 1.0, 0.6 * (1 - c.depth[at]) ** 3))


def rock(s: Stage, at: At) -> Floats:
    """Boulders: round as a whole, cracked and pitted as a surface, mossy or snowy on top."""
    c = s.canvas
    size = c.above[at] + c.below[at] + 1e-3
    width = c.left[at] + c.right[at] + 1e-3
    x, y = 2 * c.left[at] / width - 1, 1 - 2 * c.above[at] / size
    pits, light = s.upright(rough(1.3, 13), at, 300, 4.0)
    cracks = s.upright(ridges(14), at, 210, 1.0)[0]
    z = np.sqrt(np.clip(1.15 - 0.6 * x * x - 0.5 * y * y, 0.05, 1))
    round_light = 0.75 * x * s.sun[0] + (0.75 * y + 0.2) * s.sun[1] + z * s.sun[2]
    tone = c.random.uniform(0.85, 1.1)
    albedo = (
        np.array([0.47, 0.44, 0.41], np.float32)
        * tone
        * (1 + 0.13 * pits - 0.10 * np.clip(cracks - 0.8, 0, 1))[:, None]
    )
    moss = smooth(0.9 * y - 0.5 + 0.4 * pits) * (1 - s.frost) * 0.5
    albedo = mix(albedo, np.array(c.palette.grass, np.float32) * 0.7, moss)
    albedo = mix(albedo, _SNOW, smooth(2.2 * y - 0.3 + 0.3 * pits) * min(1.0, 1.4 * s.frost))
    occluded = np.clip(c.below[at] / 0.02, 0.35, 1)
    return s.lit(albedo, 0.85 * round_light + 0.55 * (light - 0.5), 0.85 * occluded)


def road(s: Stage, at: At) -> Floats:
    """Asphalt with wheel tracks, gravel at its edges, and one dashed line in the middle."""
    c = s.canvas
    width = c.left[at] + c.right[at] + 1e-3
    across = c.left[at] / width
    near = c.depth[at]
    wear, roll = s.level(rough(1.6, 15), at, 40, 0.35)
    grains = c.noise(at, 0.2, 512)
    albedo = np.array([0.30, 0.30, 0.31], np.float32) * (1 + 0.10 * grains * (0.3 + 0.7 * near) + 0.10 * wear)[:, None]
    tracks = np.exp(-(((np.abs(across - 0.5) - 0.23) / 0.07) ** 2))
    albedo = albedo * (1 - 0.16 * tracks)[:, None]
    line = np.maximum(0.016, 0.7 / np.maximum(width * c.height, 1))
    middle = smooth(1.5 - np.abs(across - 0.5) / line) * (width > 0.02)
    dash = smooth(4 * np.sin(2.6 * s.distance[at] + c.random.uniform(0, 6)) + 1.2)
    albedo = mix(albedo, np.array([0.88, 0.86, 0.80], np.float32), middle * dash * (0.85 + 0.08 * grains).clip(0, 1))
    edge = smooth((0.075 + 0.02 * wear - np.minimum(across, 1 - across)) / 0.03)
    albedo = mix(albedo, np.array([0.46, 0.41, 0.34], np.float32) * (1 + 0.16 * grains)[:, None], edge * 0.9)
    albedo = mix(albedo, _SNOW * 0.93, _cover(s.frost, 0.3 * wear - 0.75 * tracks - 0.10 + 0.35 * edge))
    return s.hazed(s.lit(albedo, 0.92 * roll, 1.0, at), 0.75 * (1 - near) ** 3)


def _cover(frost: float, uneven: Floats) -> Floats:
    """Share of snow on ground, 0..1: patches at first, all of it at frost 1."""
    found: Floats = smooth(2.2 * frost - 0.85 + uneven) * min(1.0, 1.6 * frost)
    return found
