"""A label map of demo classes -> an image: every class has a surface, light falls on it, distance fades it.

Nothing but the two maps, the palette and the random generator enters, so any map in the demo ids can be rendered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spade_core.demo_maps import NAMES
from trainer.scenes.noise import Floats, sample, table
from trainer.scenes.styles import Colour, Palette

Map = npt.NDArray[np.uint8]  # [H, W]
Ids = npt.NDArray[np.int32]  # [H, W]

ID = {name: i for i, name in enumerate(NAMES)}
_GROUND = ("water", "grass", "sand", "road")
_STANDING = ("tree", "house", "roof", "rock")

_WALLS = ((0.93, 0.90, 0.84), (0.90, 0.80, 0.62), (0.72, 0.34, 0.26), (0.62, 0.70, 0.76), (0.82, 0.76, 0.70))
_ROOFS = ((0.66, 0.26, 0.18), (0.50, 0.24, 0.18), (0.36, 0.36, 0.40), (0.44, 0.30, 0.22))
_HULLS = ((0.42, 0.22, 0.10), (0.70, 0.16, 0.12), (0.14, 0.26, 0.46), (0.88, 0.86, 0.80))
_PETALS = ((0.92, 0.36, 0.62), (0.96, 0.80, 0.20), (0.95, 0.94, 0.96), (0.60, 0.36, 0.82), (0.88, 0.20, 0.18))


@dataclass
class _Scene:
    """What every surface may ask for, all flat [H * W] and in image heights, y downwards from the top."""

    palette: Palette
    random: np.random.Generator
    height: int
    width: int
    x: Floats
    y: Floats
    above: Floats  # distance to the top of the vertical run of this label
    below: Floats  # to its bottom
    left: Floats  # to the left end of the horizontal run
    right: Floats
    depth: Floats  # 0 at the horizon and above, 1 at the lower edge
    horizon: float
    sun: tuple[float, float] | None  # where the sun stands, in image heights
    light_from: float  # -1 left, +1 right
    instances: npt.NDArray[np.int32]
    image: Floats  # [H * W, 3], 0..1

    def noise(self, at: npt.NDArray[np.intp], roughness: float, scale: float, stretch: float = 1.0) -> Floats:
        """Noise in the picture's plane, `scale` texels to the image height, squeezed `stretch` times in y."""
        dx, dy = self.random.uniform(0, 512, 2)
        return sample(table(roughness, 0), self.x[at] * scale + dx, self.y[at] * scale * stretch + dy)

    def ground(self, at: npt.NDArray[np.intp], roughness: float, scale: float, stretch: float = 1.0) -> Floats:
        """Noise that lies on the ground: finer with distance, flattened towards the horizon."""
        far = 1 / (self.depth[at] + 0.12)
        dx, dy = self.random.uniform(0, 512, 2)
        x = (self.x[at] - 0.5) * far * scale
        return sample(table(roughness, 1), x + dx, far * scale * stretch + dy)

    def relief(self, at: npt.NDArray[np.intp], roughness: float, scale: float) -> Floats:
        """How much a rough surface faces the light, about -1..1: the slope of a noise towards it."""
        dx, dy = self.random.uniform(0, 512, 2)
        x, y = self.x[at] * scale + dx, self.y[at] * scale + dy
        noise, step = table(roughness, 2), 3.0
        slope = sample(noise, x + self.light_from * step, y - step) - sample(noise, x - self.light_from * step, y + step)
        return np.tanh(slope)

    def lit(self, albedo: Floats, amount: Floats | float) -> Floats:
        """Albedo [n, 3] in light: `amount` 0 is shade, 1 full sun."""
        amount = np.clip(np.asarray(amount, np.float32), 0, 1.15)
        return albedo * _mix(self.palette.shade, self.palette.light, amount)

    def hazed(self, colour: Floats, amount: Floats | float) -> Floats:
        amount = np.asarray(amount, np.float32)[..., None] * self.palette.haze_amount
        return colour + (np.array(self.palette.haze, np.float32) - colour) * np.clip(amount, 0, 1)


At = npt.NDArray[np.intp]


def render(labels: Map, instances: Ids, palette: Palette, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Demo ids uint8 [H, W] and instances int32 [H, W] -> RGB uint8 [H, W, 3]."""
    scene = _scene(labels, instances, palette, random)
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(len(NAMES) + 1))
    where = {name: order[bounds[i] : bounds[i + 1]] for i, name in enumerate(NAMES)}
    for name, surface in _SURFACES.items():  # water last: it mirrors the rest
        if len(where[name]):
            scene.image[where[name]] = surface(scene, where[name])
    _shadows(scene, labels)
    return _developed(scene, labels)


def _scene(labels: Map, instances: Ids, palette: Palette, random: np.random.Generator) -> _Scene:
    height, width = labels.shape
    rows, columns = np.indices((height, width), np.float32)
    above, below = _runs(labels)
    left, right = (d.T for d in _runs(labels.T))
    horizon = _horizon(labels)
    depth = np.clip((rows / height - horizon) / max(1 - horizon, 0.05), 0, 1)
    suns = np.flatnonzero(labels.ravel() == ID["sun"])
    sun = None
    light_from = float(random.choice([-1, 1]))
    if len(suns):
        sun = (float((suns % width).mean()) / height, float((suns // width).mean()) / height)
        light_from = 1.0 if sun[0] > width / height / 2 else -1.0
    flat = [np.ascontiguousarray(a, np.float32).ravel() for a in (columns, rows, above, below, left, right)]
    return _Scene(
        palette,
        random,
        height,
        width,
        *(a / np.float32(height) for a in flat),
        depth.astype(np.float32).ravel(),
        horizon,
        sun,
        light_from,
        instances.ravel(),
        np.zeros((height * width, 3), np.float32),
    )


def _horizon(labels: Map) -> float:
    """Where the ground begins, 0..1: snow counts below the mountains only, since their summits carry it too."""
    height = len(labels)
    behind = np.flatnonzero(np.isin(labels, [ID["mountain"], ID["hill"]]).any(axis=1))
    ground = np.isin(labels, [ID[name] for name in _GROUND])
    if len(behind):
        ground |= (labels == ID["snow"]) & (np.arange(height)[:, None] > behind[-1])
    else:
        ground |= labels == ID["snow"]
    rows = ground.any(axis=1)
    return float(rows.argmax()) / height if rows.any() else 0.5


def _runs(labels: Map) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distance, in pixels, of each pixel to the first and the last row of its vertical run of equal labels."""
    height = len(labels)
    rows = np.arange(height)[:, None]
    changes = np.ones(labels.shape, bool)
    changes[1:] = labels[1:] != labels[:-1]
    first = np.maximum.accumulate(np.where(changes, rows, 0), axis=0)
    ends = np.ones(labels.shape, bool)
    ends[:-1] = changes[1:]
    last = np.minimum.accumulate(np.where(ends, rows, height)[::-1], axis=0)[::-1]
    return rows - first, last - rows


def _mix(a: Colour | Floats, b: Colour | Floats, t: Floats | float) -> Floats:
    low, high = np.asarray(a, np.float32), np.asarray(b, np.float32)
    mixed: Floats = low + (high - low) * np.asarray(t, np.float32)[..., None]
    return mixed


def _smooth(t: Floats) -> Floats:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _sky_colour(s: _Scene, x: Floats, y: Floats) -> Floats:
    colour = _mix(s.palette.sky_top, s.palette.sky_low, _smooth(y / (s.horizon + 0.05)) ** 0.8)
    if s.sun is not None:
        distance = np.hypot(x - s.sun[0], y - s.sun[1])
        glow = (0.55 * np.exp(-distance / 0.09) + 0.35 * np.exp(-distance / 0.3)) * (1 - 0.6 * s.palette.night)
        colour = colour + (np.array(s.palette.sun, np.float32) - colour) * glow[:, None]
    return colour


def _sky(s: _Scene, at: At) -> Floats:
    colour = _sky_colour(s, s.x[at], s.y[at])
    veil = np.clip(s.noise(at, 1.9, 90, 2.5) - 0.4, 0, 1.5) * 0.16  # thin cirrus
    colour = colour + (np.array(s.palette.cloud_lit, np.float32) - colour) * veil[:, None]
    if s.palette.night:
        white = s.noise(at, 0.0, s.height)
        stars = (white > 2.75) * np.clip((white - 2.5) * 1.2, 0, 1) * s.palette.night
        colour = colour + stars[:, None].astype(np.float32) * (1 - s.y[at, None] / (s.horizon + 0.1))
    return colour


def _sun(s: _Scene, at: At) -> Floats:
    colour = np.tile(np.array(s.palette.sun, np.float32), (len(at), 1))
    if s.palette.night > 0.5:
        return colour * (0.92 + 0.07 * s.noise(at, 1.6, 400))[:, None]
    edge = np.minimum(np.minimum(s.above[at], s.below[at]), np.minimum(s.left[at], s.right[at]))
    return _mix(colour, np.ones(3, np.float32), np.clip(edge / 0.02, 0, 0.8))


def _cloud(s: _Scene, at: At) -> Floats:
    size = s.above[at] + s.below[at] + 1e-3
    billow = s.noise(at, 1.7, 150)
    side = s.light_from * (s.left[at] - s.right[at]) / (s.left[at] + s.right[at] + 1e-3)
    lit = 1.05 - 0.95 * (s.above[at] / size) + 0.22 * billow + 0.15 * side
    return _mix(s.palette.cloud_dark, s.palette.cloud_lit, _smooth(lit))


def _mountain(s: _Scene, at: At) -> Floats:
    tint = s.random.uniform(-0.03, 0.03, 3)
    rough = s.noise(at, 1.3, 170)
    albedo = (np.array([0.47, 0.43, 0.42]) + tint).astype(np.float32) * (1 + 0.12 * rough)[:, None]
    facing = 0.5 + 0.55 * s.relief(at, 1.6, 150)
    line = s.random.uniform(-0.02, 0.07) + 0.14 * s.palette.snow
    snow = _smooth((line + 0.025 * s.noise(at, 1.0, 260) - s.above[at]) / 0.012)
    albedo = _mix(albedo, np.array([0.95, 0.97, 1.0], np.float32), snow)
    return s.hazed(s.lit(albedo, facing + 0.25 * snow), 0.7 + 0.5 * s.y[at] / (s.horizon + 0.01))


def _hill(s: _Scene, at: At) -> Floats:
    clumps = s.noise(at, 1.2, 330)
    albedo = np.array(s.palette.hill, np.float32) * (1 + 0.13 * clumps + 0.08 * s.noise(at, 1.8, 90))[:, None]
    cover = _smooth(s.palette.snow * 1.1 + 0.3 * clumps - 0.35)
    albedo = _mix(albedo, np.array([0.92, 0.94, 0.98], np.float32), cover * min(1.0, 2 * s.palette.snow))
    lit = 0.66 + 0.3 * s.relief(at, 1.7, 110) - 0.8 * np.clip(s.above[at] - 0.02, 0, 0.3)
    return s.hazed(s.lit(albedo, lit), 0.55)


def _grass(s: _Scene, at: At) -> Floats:
    near = s.depth[at]
    patches, blades = s.ground(at, 1.7, 26), s.noise(at, 0.5, 420, 0.35)
    base = np.array(s.palette.grass, np.float32)
    albedo = _mix(base * [0.86, 0.95, 0.9], base * [1.18, 1.06, 0.9], 0.5 + 0.35 * patches)
    albedo *= (1 + (0.07 + 0.13 * near) * blades)[:, None]
    cover = _smooth(0.9 * s.palette.snow + 0.25 * s.ground(at, 1.3, 40) - 0.4) * min(1.0, 2 * s.palette.snow)
    albedo = _mix(albedo, np.array([0.93, 0.95, 0.99], np.float32), cover)
    return s.hazed(s.lit(albedo, 0.84 + 0.12 * patches), 0.45 * (1 - near) ** 2)


def _sand(s: _Scene, at: At) -> Floats:
    grains, dunes = s.noise(at, 0.3, 500), s.ground(at, 1.6, 24, 3.0)
    albedo = np.array([0.90, 0.79, 0.56], np.float32) * (1 + 0.035 * grains + 0.06 * dunes)[:, None]
    return s.hazed(s.lit(albedo, 0.86 + 0.14 * dunes), 0.4 * (1 - s.depth[at]) ** 2)


def _snow(s: _Scene, at: At) -> Floats:
    """A field of snow and, above the horizon, a summit's."""
    summit = s.y[at] < s.horizon
    drifts = np.where(summit, 1.3 * s.relief(at, 1.6, 150) - 0.6, s.ground(at, 1.8, 22, 2.0))
    albedo = np.array([0.96, 0.97, 1.0], np.float32) * (1 + 0.012 * s.noise(at, 0.2, 500))[:, None]
    return s.hazed(s.lit(albedo, 0.84 + 0.22 * drifts), np.where(summit, 0.7, 0.3 * (1 - s.depth[at]) ** 2))


def _road(s: _Scene, at: At) -> Floats:
    width = s.left[at] + s.right[at] + 1e-3
    across = s.left[at] / width
    albedo = np.array([0.36, 0.36, 0.38], np.float32) * (1 + 0.07 * s.noise(at, 0.3, 500))[:, None]
    line = 0.5 / np.maximum(width * s.height, 1)
    dashes = np.sin(7.0 / (s.depth[at] + 0.15)) > -0.1
    middle = (np.abs(across - 0.5) < 0.028 + line) & dashes & (width > 0.03)
    verge = ((across < 0.05 + line) | (across > 0.95 - line)) & (width > 0.05)
    albedo = _mix(albedo, np.array([0.94, 0.92, 0.84], np.float32), middle * 0.9 + verge * 0.5)
    return s.hazed(s.lit(albedo, 0.85), 0.45 * (1 - s.depth[at]) ** 2)


def _rock(s: _Scene, at: At) -> Floats:
    albedo = np.array([0.50, 0.47, 0.44], np.float32) * (1 + 0.14 * s.noise(at, 1.0, 330))[:, None]
    size = s.above[at] + s.below[at] + 1e-3
    top = 1 - s.above[at] / size
    cover = _smooth((top - 0.55) * 5) * s.palette.snow
    albedo = _mix(albedo, np.array([0.94, 0.96, 1.0], np.float32), cover)
    side = s.light_from * (s.left[at] - s.right[at]) / (s.left[at] + s.right[at] + 1e-3)
    return s.lit(albedo, 0.25 + 0.6 * top + 0.3 * side + 0.25 * s.relief(at, 1.2, 260))


def _tree(s: _Scene, at: At) -> Floats:
    leaves, hue = s.noise(at, 0.9, 330), s.noise(at, 2.0, 40)
    base = np.array(s.palette.foliage, np.float32)
    albedo = _mix(base * [1.25, 1.1, 0.85], base * [0.85, 0.95, 1.1], 0.5 + 0.3 * hue) * (1 + 0.22 * leaves)[:, None]
    cover = _smooth(0.5 * leaves + 1.6 * s.palette.snow - 0.9 - 4 * s.above[at]) * s.palette.snow
    albedo = _mix(albedo, np.array([0.93, 0.95, 0.99], np.float32), cover)
    size = s.above[at] + s.below[at] + 1e-3
    side = s.light_from * (s.left[at] - s.right[at]) / (s.left[at] + s.right[at] + 1e-3)
    lit = 0.85 - 0.65 * s.above[at] / size + 0.3 * side + 0.22 * leaves
    trunk = (s.left[at] + s.right[at] < 0.022) & (s.above[at] > 2.5 * s.below[at]) & (s.above[at] > 0.02)
    albedo = np.where(trunk[:, None], np.array([0.32, 0.22, 0.14], np.float32), albedo)
    return s.lit(albedo, lit + 0.25 * trunk)


def _flower(s: _Scene, at: At) -> Floats:
    first, second = s.random.choice(len(_PETALS), 2, replace=False)
    stems = np.array(s.palette.grass, np.float32) * (0.75 + 0.12 * s.noise(at, 0.4, 420))[:, None]
    dots, kind = s.noise(at, 0.8, 300), s.noise(at, 1.8, 60)
    petals = np.where((kind > 0)[:, None], np.array(_PETALS[first]), np.array(_PETALS[second])).astype(np.float32)
    return s.lit(_mix(stems, petals, _smooth(dots * 1.6 + 0.75)), 0.95)


def _things(s: _Scene, at: At) -> list[tuple[At, Floats, Floats, float]]:
    """The instances of a class: positions in `at`, and u, v 0..1 across and down each one's box, and its aspect."""
    found = []
    ids = s.instances[at]
    for one in np.unique(ids):
        here = np.flatnonzero(ids == one)
        x, y = s.x[at[here]], s.y[at[here]]
        w, h = float(np.ptp(x)) + 1 / s.height, float(np.ptp(y)) + 1 / s.height
        found.append((here, (x - x.min()) / w, (y - y.min()) / h, w / h))
    return found


def _house(s: _Scene, at: At) -> Floats:
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
    return _mix(colour, np.array([1.0, 0.80, 0.36], np.float32), glow)


def _roof(s: _Scene, at: At) -> Floats:
    colour = np.zeros((len(at), 3), np.float32)
    for here, u, v, _ in _things(s, at):
        tiles = 1 - 0.14 * (np.sin(v * 28) > 0.3) + 0.05 * np.sin(u * 60)
        albedo = np.array(_ROOFS[s.random.integers(len(_ROOFS))], np.float32) * tiles[:, None]
        albedo = _mix(albedo, np.array([0.95, 0.97, 1.0], np.float32), s.palette.snow * _smooth(1.5 - v))
        colour[here] = s.lit(albedo.astype(np.float32), 0.95 - 0.25 * v)
    return colour


def _boat(s: _Scene, at: At) -> Floats:
    colour = np.zeros((len(at), 3), np.float32)
    for here, u, v, _ in _things(s, at):
        hull = np.array(_HULLS[s.random.integers(len(_HULLS))], np.float32)
        stripe = (v > 0.82) & (v < 0.86)
        albedo = np.where((v > 0.8)[:, None], hull, np.array([0.97, 0.96, 0.92]) * (1 - 0.15 * (u > 0.62))[:, None])
        albedo = np.where(stripe[:, None], np.array([0.95, 0.94, 0.90]), albedo)
        colour[here] = s.lit(albedo.astype(np.float32), 1.0)
    return colour


def _water(s: _Scene, at: At) -> Floats:
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
    colour = _mix(reflection, np.array(s.palette.water, np.float32), 0.28 + 0.42 * near + 0.08 * ripples)
    colour *= (1 + 0.09 * ripples)[:, None]
    if s.sun is not None:
        path = np.exp(-(((s.x[at] - s.sun[0]) / (0.03 + 0.10 * near)) ** 2))
        glint = path * np.clip(ripples * 0.8 + 0.25, 0, 1) * (0.9 - 0.3 * s.palette.night)
        colour = _mix(colour, np.array(s.palette.sun, np.float32), glint)
    foam = (s.above[at] * s.height < 1.0) * 0.25
    return _mix(colour, np.array(s.palette.sky_low, np.float32), foam.astype(np.float32))


_SURFACES: dict[str, Callable[[_Scene, At], Floats]] = {
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


def _shadows(s: _Scene, labels: Map) -> None:
    """What stands on the ground darkens the ground beside it, away from the light."""
    standing = np.isin(labels, [ID[name] for name in _STANDING])
    open_ground = np.isin(labels, [ID[name] for name in ("grass", "sand", "snow", "road", "flower")])
    image = s.image.reshape(s.height, s.width, 3)
    cast = np.zeros(labels.shape, bool)
    for step in (1, 2, 3):
        down, across = round(0.006 * step * s.height) + 1, round(-s.light_from * 0.018 * step * s.height)
        cast[down:] |= np.roll(standing, across, axis=1)[:-down]
    image[cast & open_ground] *= 0.72


def _developed(s: _Scene, labels: Map) -> npt.NDArray[np.uint8]:
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
    return (np.clip(image + grain, 0, 1) * 255 + 0.5).astype(np.uint8)


