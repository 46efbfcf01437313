"""Houses, roofs and boats: each instance has its own box, u across and v down, 0..1."""

from __future__ import annotations

import numpy as np

from trainer.scenes.canvas import At, mix, smooth
from trainer.scenes.lit.stage import Stage
from trainer.scenes.noise import Floats

_WALLS = ((0.86, 0.83, 0.76), (0.80, 0.70, 0.54), (0.60, 0.30, 0.23), (0.58, 0.64, 0.68), (0.74, 0.69, 0.62))
_ROOFS = ((0.50, 0.23, 0.17), (0.40, 0.22, 0.17), (0.30, 0.30, 0.33), (0.36, 0.27, 0.21))
_HULLS = ((0.36, 0.20, 0.11), (0.60, 0.15, 0.11), (0.14, 0.24, 0.40), (0.78, 0.76, 0.70))
_DOORS = ((0.30, 0.17, 0.10), (0.16, 0.26, 0.20), (0.34, 0.12, 0.10), (0.20, 0.24, 0.34))
_GLASS = np.array([0.10, 0.12, 0.15], np.float32)
_LAMP = np.array([1.0, 0.78, 0.42], np.float32)
_SNOW = np.array([0.94, 0.96, 1.0], np.float32)


def house(s: Stage, at: At) -> Floats:
    """Boarded or plastered walls with framed windows, a door, and the shadow of the eaves."""
    c = s.canvas
    colour = np.zeros((len(at), 3), np.float32)
    for here, u, v, aspect, tall in _things(s, at):
        wall = np.array(_WALLS[c.random.integers(len(_WALLS))], np.float32) * c.random.uniform(0.9, 1.05)
        stain = c.noise(at[here], 1.4, 120)
        boards = 1 - 0.10 * (np.sin(v * np.pi * 2 * 16) > 0.86) * (tall > 0.06)
        albedo = wall * (boards * (1 + 0.05 * stain + 0.03 * c.noise(at[here], 0.3, 500)))[:, None]
        albedo = mix(albedo, np.array([0.34, 0.32, 0.30], np.float32), smooth((v - 0.93) / 0.03) * 0.7)
        count = max(3, round(2.4 * aspect))
        bay, cell = np.floor(u * count), u * count % 1
        middle = c.random.integers(1, count - 1) if count > 2 else 0
        is_door = bay == middle
        glass, frame = _window(cell, v, tall)
        glass, frame = glass * ~is_door, frame * ~is_door
        door = is_door * smooth((0.21 - np.abs(cell - 0.5)) / 0.02) * smooth((v - 0.40) / 0.02)
        step = is_door * smooth((0.26 - np.abs(cell - 0.5)) / 0.02) * smooth((v - 0.37) / 0.02)
        albedo = mix(albedo, np.array([0.86, 0.84, 0.80], np.float32), np.maximum(frame, step * 0.8))
        panel = 1 - 0.25 * ((np.abs(cell - 0.5) < 0.13) & (np.abs((v - 0.42) % 0.26 - 0.13) < 0.09))
        albedo = mix(albedo, np.array(_DOORS[c.random.integers(len(_DOORS))], np.float32) * panel[:, None], door)
        eaves = smooth((v - 0.04) / 0.12)
        lit = (0.35 + 0.55 * s.sun[2] + 0.25 * s.sun[0] * (2 * u - 1)) * (0.25 + 0.75 * eaves)
        found = s.lit(albedo, lit, (0.62 + 0.30 * eaves) * np.clip(0.55 + (1 - v) * 6, 0.55, 1))
        mirrored = mix(
            _GLASS, c.palette.sky_low, 0.18 + 0.30 * smooth(1.1 - 1.6 * np.abs(v - 0.42 - 0.3 * (cell - 0.5)))
        )
        lamp = c.palette.night * (c.random.random() < 0.9)
        mirrored = mix(
            mirrored, _LAMP * (1 - 0.25 * np.abs(cell - 0.5))[:, None], lamp * (0.75 + 0.2 * np.sin(bay * 2.4))
        )
        colour[here] = mix(found, mirrored, glass)
    return colour


def _window(cell: Floats, v: Floats, tall: float) -> tuple[Floats, Floats]:
    """Where the glass and where the frame of the window of a bay is, 0..1; bars only where they can be seen."""
    across, down = np.abs(cell - 0.5), np.abs(v - 0.44)
    soft = 0.012
    frame = smooth((0.23 - across) / soft) * smooth((0.21 - down) / soft)
    glass = smooth((0.185 - across) / soft) * smooth((0.175 - down) / soft)
    if tall > 0.05:
        glass = glass * (1 - smooth((0.018 - across) / soft)) * (1 - smooth((0.016 - np.abs(v - 0.40)) / soft))
    return glass, frame * (1 - glass)


def roof(s: Stage, at: At) -> Floats:
    """Rows of tiles, weathered; snow lies on it in winter, and the ridge is bright."""
    c = s.canvas
    colour = np.zeros((len(at), 3), np.float32)
    for here, u, v, aspect, tall in _things(s, at):
        rows = max(5.0, min(15.0, tall * 150))
        row = v * rows
        edge = (row % 1) ** 2.5
        tile = np.sin((u * rows * 1.7 * aspect + 0.5 * (np.floor(row) % 2)) * 2 * np.pi)
        weather = c.noise(at[here], 1.5, 110)
        tint = np.array(_ROOFS[c.random.integers(len(_ROOFS))], np.float32)
        albedo = tint * (1.05 - 0.32 * edge + 0.06 * tile + 0.10 * weather)[:, None]
        albedo = mix(albedo, _SNOW, smooth(3.2 * s.frost - 1.0 - 0.6 * v + 0.25 * weather) * min(1.0, 1.5 * s.frost))
        lit = 0.45 + 0.5 * s.sun[1] + 0.16 * s.sun[0] * (2 * u - 1) - 0.10 * edge
        lit = lit * (1 - 0.55 * smooth((v - 0.93) / 0.05))
        colour[here] = s.lit(albedo, lit, 0.95)
    return colour


def boat(s: Stage, at: At) -> Floats:
    """A hull with a pale gunwale, and a sail that bellies in the wind."""
    c = s.canvas
    colour = np.zeros((len(at), 3), np.float32)
    for here, u, v, _, _ in _things(s, at):
        hull = np.array(_HULLS[c.random.integers(len(_HULLS))], np.float32)
        low = smooth((v - 0.79) / 0.015)
        belly = 0.55 + 0.4 * np.sin(np.clip((u - 0.45) / 0.35, 0, 1) * np.pi) * (0.4 + 0.6 * v)
        seam = 1 - 0.10 * (np.abs((v * 6) % 1 - 0.5) < 0.04)
        sail = np.array([0.90, 0.88, 0.83], np.float32) * seam[:, None]
        planks = hull * (1 - 0.10 * (np.sin(v * 190) > 0.7))[:, None]
        albedo = mix(sail, planks, low)
        albedo = mix(albedo, np.array([0.86, 0.84, 0.78], np.float32), smooth(1.4 - np.abs(v - 0.815) / 0.012))
        lit = np.where(low > 0.5, 0.75 - 2.2 * np.clip(v - 0.82, 0, 1), belly + 0.15 * s.sun[0] * (2 * u - 1))
        colour[here] = s.lit(albedo, lit, 0.9)
    return colour


def _things(s: Stage, at: At) -> list[tuple[At, Floats, Floats, float, float]]:
    """The instances of a class: positions in `at`, u, v, width / height of the box, and its height in the picture."""
    c, found = s.canvas, []
    ids = c.instances[at]
    for one in np.unique(ids):
        here = np.flatnonzero(ids == one)
        x, y = c.x[at[here]], c.y[at[here]]
        w, h = float(np.ptp(x)) + 1 / c.height, float(np.ptp(y)) + 1 / c.height
        found.append((here, (x - x.min()) / w, (y - y.min()) / h, w / h, h))
    return found
