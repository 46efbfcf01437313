"""What the surfaces of a lit scene share: the canvas, the sun's direction, and the shadows on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spade_core.types import Map
from trainer.scenes.canvas import ID, At, Canvas, mix
from trainer.scenes.lit.relief import blurred, offset, sampled
from trainer.scenes.noise import Floats

STANDING = ("tree", "house", "roof", "rock")
GROUND = ("grass", "sand", "snow", "road", "flower", "hill")


@dataclass
class Stage:
    """A canvas in the light of its sun.

    Attributes:
        sun: unit vector towards the sun: x to the right, y up, z towards the viewer.
        distance: of each pixel's ground from the viewer, 1 at the lower edge, large at the horizon; [H * W].
        shadow: share of the sun's light that standing things keep from each pixel, 0..1; [H * W].
        frost: share of the upward surfaces that carry snow, 0..1.
    """

    canvas: Canvas
    sun: tuple[float, float, float]
    distance: Floats
    shadow: Floats
    frost: float

    def upright(
        self, field: Floats, at: At, scale: float, strength: float, stretch: float = 1.0
    ) -> tuple[Floats, Floats]:
        """Height, and light 0..1, of a rough surface that faces the viewer; `scale` texels to the image height."""
        c = self.canvas
        dx, dy = offset(c.random)
        found = sampled(field, c.x[at] * scale + dx, c.y[at] * scale * stretch + dy)
        slope_x, slope_y = found[:, 1] * strength, found[:, 2] * strength * stretch
        x, y, z = self.sun
        light = (-slope_x * x + slope_y * y + z) / np.sqrt(slope_x**2 + slope_y**2 + 1)
        return found[:, 0], light

    def level(self, field: Floats, at: At, scale: float, strength: float) -> tuple[Floats, Floats]:
        """Height, and light about 1 where even, of rough ground; relief fades where its texels get too fine."""
        c = self.canvas
        dx, dy = offset(c.random)
        far = self.distance[at]
        found = sampled(field, (c.x[at] - 0.5) * far * scale + dx, far * scale * 2.2 + dy)
        fine = np.clip(c.height / (far * scale * 2.0), 0, 1)  # pixels to a texel across
        slope_x, slope_z = found[:, 1] * strength * fine, found[:, 2] * strength * fine
        x, y, z = self.sun
        light = (-slope_x * x + y + slope_z * z) / (np.sqrt(slope_x**2 + slope_z**2 + 1) * max(y, 0.25))
        return found[:, 0] * fine, light

    def lit(
        self, albedo: Floats, light: Floats | float, open_sky: Floats | float = 1.0, at: At | None = None
    ) -> Floats:
        """Albedo [n, 3] in the sun's light, 0..1, and in the sky's, of which a surface sees the share `open_sky`."""
        palette = self.canvas.palette
        direct: Floats = np.clip(np.asarray(light, np.float32), 0, 1.25)
        if at is not None:
            direct = direct * (1 - self.shadow[at])
        ambient = np.array(palette.shade, np.float32) * np.clip(np.asarray(open_sky, np.float32), 0.1, 1.2)[..., None]
        beam = np.array(palette.light, np.float32) - np.array(palette.shade, np.float32)
        found: Floats = albedo * (ambient + beam * direct[..., None])
        return found

    def hazed(self, colour: Floats, amount: Floats | float) -> Floats:
        """Colour [n, 3] seen through `amount`, 0..1, of the air between here and the horizon."""
        amount = np.asarray(amount, np.float32) * self.canvas.palette.haze_amount
        return mix(colour, self.canvas.palette.haze, np.clip(amount, 0, 1))


def stage(c: Canvas, labels: Map, frost: float) -> Stage:
    """The stage of a canvas: a sun that is seen lights from behind, another one from before the scene."""
    x = c.light_from * float(c.random.uniform(0.45, 0.8))
    y, z = float(c.random.uniform(0.35, 0.6)), float(c.random.uniform(0.35, 0.55))
    norm = float(np.sqrt(x * x + y * y + z * z))
    sun = (x / norm, y / norm, z / norm)
    distance = 1 / np.clip((c.y - c.horizon) / max(1 - c.horizon, 0.05) + 0.03, 0.03, None)
    shadow = _shadows(c, labels, sun).ravel()
    return Stage(c, sun, distance.astype(np.float32), shadow, frost)


def _shadows(c: Canvas, labels: Map, sun: tuple[float, float, float]) -> Floats:
    """Cast standing things along the ground: a point h above its foot lands h / tan(elevation) away from the sun."""
    standing = np.isin(labels, [ID[name] for name in STANDING])
    height, width = labels.shape
    rows, columns = np.nonzero(standing)
    foot = _feet(standing)[rows, columns]
    up = foot - rows
    across = -sun[0] / sun[1]
    # A sun that is seen stands behind the scene, so shadows come towards the viewer; others fall away from him.
    along = 0.34 if c.sun is not None else -0.14
    to_x = np.round(columns + up * across).astype(np.int64)
    to_y = np.round(foot + up * along).astype(np.int64)
    cast = np.zeros((height, width), np.float32)
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    cast[to_y[inside], to_x[inside]] = 1
    ground = np.isin(labels, [ID[name] for name in GROUND])
    # Forward mapping leaves holes, which a blur and a threshold close.
    soft = np.clip(blurred(cast, height / 200) * 2.6, 0, 1)
    at_feet = blurred(standing, height / 110) * 0.9  # light that things keep from the ground beside them
    shade: Floats = np.where(ground, np.clip(soft * 0.85 + at_feet * 0.6, 0, 0.95), 0)
    return shade


def _feet(standing: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The lowest row of the vertical run of standing pixels that each pixel belongs to."""
    height = len(standing)
    rows = np.arange(height)[:, None]
    ends = np.ones(standing.shape, bool)
    ends[:-1] = ~standing[1:]
    below = np.where(standing & ends, rows, height)
    found: npt.NDArray[np.int64] = np.minimum.accumulate(below[::-1], axis=0)[::-1]
    return found
