"""Sky, sun and clouds: the air scatters the sun's light, and clouds are as soft as their noise."""

from __future__ import annotations

import numpy as np

from spade_core.types import Map
from trainer.scenes.canvas import ID, At, Canvas, mix, smooth
from trainer.scenes.lit.relief import blurred, offset, rough, sampled
from trainer.scenes.lit.stage import Stage
from trainer.scenes.noise import Floats


def air(c: Canvas, x: Floats, y: Floats) -> Floats:
    """The cloudless sky [n, 3] at positions in image heights: deep above, pale at the horizon, bright at the sun."""
    down = np.clip(y / (c.horizon + 0.03), 0, 1)
    colour = mix(c.palette.sky_top, c.palette.sky_low, down**1.4)
    if c.sun is not None:
        far = np.hypot(x - c.sun[0], y - c.sun[1])
        glow = 0.75 * np.exp(-far / 0.035) + 0.38 * np.exp(-far / 0.12) + 0.22 * np.exp(-far / 0.4)
        colour = mix(colour, c.palette.sun, glow * (1 - 0.72 * c.palette.night))
    return colour


def sky(s: Stage, labels: Map, at: At) -> Floats:
    """Sky, sun and clouds together: `at` holds the pixels of all three classes."""
    c = s.canvas
    colour = air(c, c.x[at], c.y[at])
    colour = _stars(s, at, colour)
    colour = _disc(s, labels, at, colour)
    streaks = rough(1.9, 5)
    dx, dy = offset(c.random)
    tilt = c.random.uniform(-0.15, 0.15)
    veil = sampled(streaks, c.x[at] * 60 + dx, (c.y[at] + tilt * c.x[at]) * 240 + dy)[:, 0]
    colour = mix(colour, c.palette.cloud_lit, np.clip(veil * 0.5 - 0.15, 0, 1) * 0.22)
    if (labels == ID["cloud"]).any():
        colour = _clouds(s, labels, at, colour)
    return colour


def _stars(s: Stage, at: At, colour: Floats) -> Floats:
    c = s.canvas
    if c.palette.night < 0.3:
        return colour
    white = c.noise(at, 0.0, c.height)
    stars = np.clip((white - 2.9) * 1.6, 0, 1) * c.palette.night * np.clip(1 - c.y[at] / (c.horizon + 0.1), 0, 1)
    found: Floats = colour + stars[:, None].astype(np.float32)
    return found


def _disc(s: Stage, labels: Map, at: At, colour: Floats) -> Floats:
    """The sun, or the moon with its seas; its edge is a pixel or two soft."""
    c = s.canvas
    disc = blurred(labels == ID["sun"], c.height / 300).ravel()[at]
    if c.sun is None or not disc.any():
        return colour
    face: Floats = np.tile(np.array(c.palette.sun, np.float32), (len(at), 1))
    if c.palette.night > 0.5:
        face = face * (0.86 + 0.10 * c.noise(at, 1.8, 420))[:, None]
    else:
        face = mix(face, np.ones(3, np.float32), 0.7)
    return mix(colour, face, smooth(disc * 1.5 - 0.25))


def _clouds(s: Stage, labels: Map, at: At, colour: Floats) -> Floats:
    """Billows whose density falls towards the edge of the class, bright towards the sun and dark below."""
    c = s.canvas
    mask = labels == ID["cloud"]
    body, wide = blurred(mask, c.height / 60), blurred(mask, c.height / 26)
    dx, dy = offset(c.random)
    x, y = c.x[at] * 210 + dx, c.y[at] * 260 + dy
    billow = sampled(rough(1.75, 6), x, y)
    density = body.ravel()[at] * 1.9 + 0.34 * billow[:, 0] - 0.62
    alpha = smooth(density * 0.85) * np.clip(wide.ravel()[at] * 4, 0, 1)
    # The slope of the cloud's thickness stands for its surface: it faces up and out where the cloud thins.
    rise = np.gradient(wide)
    slope_y, slope_x = rise[0].ravel()[at] * c.height / 9, rise[1].ravel()[at] * c.height / 9
    sun_x = s.sun[0] * 1.1
    light = 0.50 + 0.55 * slope_y - 0.45 * sun_x * slope_x + 1.7 * (billow[:, 2] * 0.9 - billow[:, 1] * sun_x)
    light = light - 0.28 * np.clip(density - 0.7, 0, 1)
    shade = mix(c.palette.cloud_dark, c.palette.cloud_lit, smooth(light))
    return mix(colour, shade, alpha * 0.97)
