"""The surface of every class: the colours of its pixels in the scene's light, [n, 3] in 0..1 for n positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainer.scenes.canvas import At, Canvas, mix, smooth
from trainer.scenes.noise import Floats

_WALLS = ((0.93, 0.90, 0.84), (0.90, 0.80, 0.62), (0.72, 0.34, 0.26), (0.62, 0.70, 0.76), (0.82, 0.76, 0.70))
_ROOFS = ((0.66, 0.26, 0.18), (0.50, 0.24, 0.18), (0.36, 0.36, 0.40), (0.44, 0.30, 0.22))
_HULLS = ((0.42, 0.22, 0.10), (0.70, 0.16, 0.12), (0.14, 0.26, 0.46), (0.88, 0.86, 0.80))
_PETALS = ((0.92, 0.36, 0.62), (0.96, 0.80, 0.20), (0.95, 0.94, 0.96), (0.60, 0.36, 0.82), (0.88, 0.20, 0.18))


def _sky_colour(s: Canvas, x: Floats, y: Floats) -> Floats:
    colour = mix(s.palette.sky_top, s.palette.sky_low, smooth(y / (s.horizon + 0.05)) ** 0.8)
    if s.sun is not None:
        distance = np.hypot(x - s.sun[0], y - s.sun[1])
        glow = (0.55 * np.exp(-distance / 0.09) + 0.35 * np.exp(-distance / 0.3)) * (1 - 0.6 * s.palette.night)
        colour = colour + (np.array(s.palette.sun, np.float32) - colour) * glow[:, None]
    return colour


def _sky(s: Canvas, at: At) -> Floats:
    colour = _sky_colour(s, s.x[at], s.y[at])
    veil = np.clip(s.noise(at, 1.9, 90, 2.5) - 0.4, 0, 1.5) * 0.16  # thin cirrus
    colour = mix(colour, np.array(s.palette.cloud_lit, np.float32), veil)
    if s.palette.night:
        white = s.noise(at, 0.0, s.height)
        stars = (white > 2.75) * np.clip((white - 2.5) * 1.2, 0, 1) * s.palette.night
        colour = colour + stars[:, None].astype(np.float32) * (1 - s.y[at, None] / (s.horizon + 0.1))
    return colour


def _sun(s: Canvas, at: At) -> Floats:
    colour = np.tile(np.array(s.palette.sun, np.float32), (len(at), 1))
    if s.palette.night > 0.5:
        return colour * (0.92 + 0.07 * s.noise(at, 1.6, 400))[:, None]
    edge = np.minimum(np.minimum(s.above[at], s.below[at]), np.minimum(s.left[at], s.right[at]))
    return mix(colour, np.ones(3, np.float32), np.clip(edge / 0.02, 0, 0.8))


def _cloud(s: Canvas, at: At) -> Floats:
    size = s.above[at] + s.below[at] + 1e-3
    billow = s.noise(at, 1.7, 150)
    side = s.light_from * (s.left[at] - s.right[at]) / (s.left[at] + s.right[at] + 1e-3)
    lit = 1.05 - 0.95 * (s.above[at] / size) + 0.22 * billow + 0.15 * side
    return mix(s.palette.cloud_dark, s.palette.cloud_lit, smooth(lit))


def _mountain(s: Canvas, at: At) -> Floats:
    tint = s.random.uniform(-0.03, 0.03, 3)
    rough = s.noise(at, 1.3, 170)
    albedo = (np.array([0.47, 0.43, 0.42]) + tint).astype(np.float32) * (1 + 0.12 * rough)[:, None]
    facing = 0.5 + 0.55 * s.relief(at, 1.6, 150)
    line = s.random.uniform(-0.02, 0.07) + 0.14 * s.palette.snow
    snow = smooth((line + 0.025 * s.noise(at, 1.0, 260) - s.above[at]) / 0.012)
    albedo = mix(albedo, np.array([0.95, 0.97, 1.0], np.float32), snow)
    return s.hazed(s.lit(albedo, facing + 0.25 * snow), 0.7 + 0.5 * s.y[at] / (s.horizon + 0.01))


def _hill(s: Canvas, at: At) -> Floats:
    clumps = s.noise(at, 1.2, 330)
    albedo = np.array(s.palette.hill, np.float32) * (1 + 0.13 * clumps + 0.08 * s.noise(at, 1.8, 90))[:, None]
    cover = smooth(s.palette.snow * 1.1 + 0.3 * clumps - 0.35)
    albedo = mix(albedo, np.array([0.92, 0.94, 0.98], np.float32), cover * min(1.0, 2 * s.palette.snow))
    lit = 0.66 + 0.3 * s.relief(at, 1.7, 110) - 0.8 * np.clip(s.above[at] - 0.02, 0, 0.3)
    return s.hazed(s.lit(albedo, lit), 0.55)


def _grass(s: Canvas, at: At) -> Floats:
    near = s.depth[at]
    patches, blades = s.ground(at, 1.7, 26), s.noise(at, 0.5, 420, 0.35)
    base = np.array(s.palette.grass, np.float32)
    albedo = mix(base * [0.86, 0.95, 0.9], base * [1.18, 1.06, 0.9], 0.5 + 0.35 * patches)
    albedo *= (1 + (0.07 + 0.13 * near) * blades)[:, None]
    cover = smooth(0.9 * s.palette.snow + 0.25 * s.ground(at, 1.3, 40) - 0.4) * min(1.0, 2 * s.palette.snow)
    albedo = mix(albedo, np.array([0.93, 0.95, 0.99], np.float32), cover)
    return s.hazed(s.lit(albedo, 0.84 + 0.12 * patches), 0.45 * (1 - near) ** 2)


def _sand(s: Canvas, at: At) -> Floats:
    grains, dunes = s.noise(at, 0.3, 500), s.ground(at, 1.6, 24, 3.0)
    albedo = np.array([0.90, 0.79, 0.56], np.float32) * (1 + 0.035 * grains + 0.06 * dunes)[:, None]
    return s.hazed(s.lit(albedo, 0.86 + 0.14 * dunes), 0.4 * (1 - s.depth[at]) ** 2)


def _snow(s: Canvas, at: At) -> Floats:
    """Snow of a field, or above the horizon of a summit."""
    summit = s.y[at] < s.horizon
    drifts = np.where(summit, 1.3 * s.relief(at, 1.6, 150) - 0.6, s.ground(at, 1.8, 22, 2.0))
    albedo = np.array([0.96, 0.97, 1.0], np.float32) * (1 + 0.012 * s.noise(at, 0.2, 500))[:, None]
    return s.hazed(s.lit(albedo, 0.84 + 0.22 * drifts), np.where(summit, 0.7, 0.3 * (1 - s.depth[at]) ** 2))


def _road(s: Canvas, at: At) -> Floats:
    width = s.left[at] + s.right[at] + 1e-3
    across = s.left[at] / width
    albedo = np.array([0.36, 0.36, 0.38], np.float32) * (1 + 0.07 * s.noise(at, 0.3, 500))[:, None]
    line = 0.5 / np.maximum(width * s.height, 1)
    dashes = np.sin(7.0 / (s.depth[at] + 0.15)) > -0.1
    middle = (np.abs(across - 0.5) < 0.028 + line) & dashes & (width > 0.03)
    verge = ((across < 0.05 + line) | (across > 0.95 - line)) & (width > 0.05)
    albedo = mix(albedo, np.array([0.94, 0.92, 0.84], np.float32), middle * 0.9 + verge * 0.5)
    return s.hazed(s.lit(albedo, 0.85), 0.45 * (1 - s.depth[at]) ** 2)


def _rock(s: Canvas, at: At) -> Floats:
    albedo = np.array([0.50, 0.47, 0.44], np.float32) * (1 + 0.14 * s.noise(at, 1.0, 330))[:, None]
    size = s.above[at] + s.below[at] + 1e-3
    top = 1 - s.above[at] / size
    cover = smooth((top - 0.55) * 5) * s.palette.snow
    albedo = mix(albedo, np.array([0.94, 0.96, 1.0], np.float32), cover)
    side = s.light_from * (s.left[at] - s.right[at]) / (s.left[at] + s.right[at] + 1e-3)
    return s.lit(albedo, 0.25 + 0.6 * top + 0.3 * side + 0.25 * s.relief(at, 1.2, 260))


def _tree(s: Canvas, at: At) -> Floats:
    leaves, hue = s.noise(at, 0.9, 330), s.noise(at, 2.0, 40)
    base = np.array(s.palette.foliage, np.float32)
    albedo = mix(base * [1.25, 1.1, 0.85], base * [0.85, 0.95, 1.1], 0.5 + 0.3 * hue) * (1 + 0.22 * leaves)[:, None]
    cover = smooth(0.5 * leaves + 1.6 * s.palette.snow - 0.9 - 4 * s.above[at]) * s.palette.snow
    albedo = mix(albedo, np.array([0.93, 0.95, 0.99], np.float32), cover)
    size = s.above[at] + s.below[at] + 1e-3
    side = s.light_from * (s.left[at] - s.right[at]) / (s.left[at] + s.right[at] + 1e-3)
    lit = 0.85 - 0.65 * s.above[at] / size + 0.3 * side + 0.22 * leaves
    trunk = (s.left[at] + s.right[at] < 0.022) & (s.above[at] > 2.5 * s.below[at]) & (s.above[at] > 0.02)
    albedo = np.where(trunk[:, None], np.array([0.32, 0.22, 0.14], np.float32), albedo)
    return s.lit(albedo, lit + 0.25 * trunk)


def _flower(s: Canvas, at: At) -> Floats:
    first, second = s.random.choice(len(_PETALS), 2, replace=False)
    stems = np.array(s.palette.grass, np.float32) * (0.75 + 0.12 * s.noise(at, 0.4, 420))[:, None]
    dots, kind = s.noise(at, 0.8, 300), s.noise(at, 1.8, 60)
    petals = np.where((kind > 0)[:, None], np.array(_PETALS[first]), np.array(_PETALS[second])).astype(np.float32)
    return s.lit(mix(stems, petals, smooth(dots * 1.6 + 0.75)), 0.95)


def _things(s: Canvas, at: At) -> list[tuple[At, Floats, Floats, float]]:
    """The instances of a class: positions in `at`; u and v, 0..1 across and down the instance's box; its aspect."""
    found = []
    ids = s.instances[at]
    for one in np.unique(ids):
        here = np.flatnonzero(ids == one)
        x, y = s.x[at[here]], s.y[at[here]]
        w, h = float(np.ptp(x)) + 1 / s.height, float(np.ptp(y)) + 1 / s.height
        found.append((here, (x - x.min()) / w, (y - y.min()) / h, w / h))
    return found


def _house(s: Canvas, at: At) -> Floats:
    colour = np.zeros((len(at), 3), np.float32)
    glow = np.zeros(len(at), np.float32)
    for here, u, v, aspect in _things(s, at):
        wall = np.array(_WALLS[s.random.integers(len(_WALLS))], np.float32) * s.random.uniform(0.92, 1.05)
        count = max(2, round(2 * aspect))
        cell = u * count % 1
        middle = count // 2
        door = (np.floor(u * count) == middle) & (np.abs(cell - 0.5) < 0.22) & (v > 0.42)
        window = (np.floor(u * count) != middle) & (np.abs(cell - 0.5) < 0.24) & (np.abs(v - 0.46) < 0.2)
        albedo = np.where(window[:, None], np.array([0.20, 0.26, 0.34]), wall * (1 - 0.12 * v[:, None]))
        albedo = np.where(door[:, None], np.array([0.38, 0.22, 0.12]), albedo)
        side = 0.95 - 0.3 * (u if s.light_from < 0 else 1 - u)
        colour[here] = s.lit(albedo.astype(np.float32), side)
        glow[here] = window * s.palette.night * (s.random.random() < 0.85)
    return mix(colour, np.array([1.0, 0.80, 0.36], np.float32), glow)


def _roof(s: Canvas, at: At) -> Floats:
    colour = np.zeros((len(at), 3), np.float32)
    for here, u, v, _ in _things(s, at):
        tiles = 1 - 0.14 * (np.sin(v * 28) > 0.3) + 0.05 * np.sin(u * 60)
        albedo: Floats = np.array(_ROOFS[s.random.integers(len(_ROOFS))], np.float32) * tiles[:, None]
        albedo = mix(albedo, np.array([0.95, 0.97, 1.0], np.float32), s.palette.snow * smooth(1.5 - v))
        colour[here] = s.lit(albedo.astype(np.float32), 0.95 - 0.25 * v)
    return colour


def _boat(s: Canvas, at: At) -> Floats:
    colour = np.zeros((len(at), 3), np.float32)
    for here, u, v, _ in _things(s, at):
        hull = np.array(_HULLS[s.random.integers(len(_HULLS))], np.float32)
        stripe = (v > 0.82) & (v < 0.86)
        albedo = np.where((v > 0.8)[:, None], hull, np.array([0.97, 0.96, 0.92]) * (1 - 0.15 * (u > 0.62))[:, None])
        albedo = np.where(stripe[:, None], np.array([0.95, 0.94, 0.90]), albedo)
        colour[here] = s.lit(albedo.astype(np.float32), 1.0)
    return colour


def _water(s: Canvas, at: At) -> Floats:
    near = s.depth[at]
    ripples = s.ground(at, 0.9, 60, 5.0)
    # The picture above the shore, upside down and shaken by the ripples.
    shake = np.round(ripples * (0.6 + 2.2 * near) * s.height / 128).astype(np.int64)
    row, column = np.divmod(at, s.width)
    shore = row - np.round(s.above[at] * s.height).astype(np.int64)
    mirrored = np.clip(2 * shore - 1 - row, 0, None)
    column = np.clip(column + shake, 0, s.width - 1)
    reflection = s.image[mirrored * s.width + column]
    sky = _sky_colour(s, s.x[at], np.clip(s.horizon * (1 - near), 0, 1))
    # A mirrored pixel that is itself water, not drawn yet, shows the sky.
    drawn = reflection.sum(axis=1) > 0
    reflection = np.where(drawn[:, None], 0.5 * reflection + 0.5 * sky, sky)
    colour = mix(reflection, np.array(s.palette.water, np.float32), 0.28 + 0.42 * near + 0.08 * ripples)
    colour *= (1 + 0.09 * ripples)[:, None]
    if s.sun is not None:
        path = np.exp(-(((s.x[at] - s.sun[0]) / (0.03 + 0.10 * near)) ** 2))
        glint = path * np.clip(ripples * 0.8 + 0.25, 0, 1) * (0.9 - 0.3 * s.palette.night)
        colour = mix(colour, np.array(s.palette.sun, np.float32), glint)
    foam = (s.above[at] * s.height < 1.0) * 0.25
    return mix(colour, np.array(s.palette.sky_low, np.float32), foam.astype(np.float32))


SURFACES: dict[str, Callable[[Canvas, At], Floats]] = {
    "sky": _sky,
    "sun": _sun,
    "cloud": _cloud,
    "mountain": _mountain,
    "hill": _hill,
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "road": _road,
    "rock": _rock,
    "tree": _tree,
    "flower": _flower,
    "house": _house,
    "roof": _roof,
    "boat": _boat,
    "water": _water,
}
