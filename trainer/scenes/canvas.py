"""The canvas that the surfaces of a scene share: each pixel's place in its region, the horizon, light and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spade_core.maps.drawn import NAMES
from spade_core.types import Ids, Map
from trainer.scenes.noise import Floats, sample, table
from trainer.scenes.styles import Colour, Palette

At = npt.NDArray[np.intp]  # flat positions of pixels

ID = {name: i for i, name in enumerate(NAMES)}
_GROUND = ("water", "grass", "sand", "road")


@dataclass
class Canvas:
    """Maps of a scene, each flat [H * W], lengths in image heights, y downwards from the top."""

    palette: Palette
    random: np.random.Generator
    height: int
    width: int
    x: Floats
    y: Floats
    above: Floats  # distance to the top of this label's vertical run
    below: Floats  # distance to the bottom of the vertical run
    left: Floats  # distance to the left end of this label's horizontal run
    right: Floats  # distance to the right end of the horizontal run
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
        """Noise on the ground: finer with distance, flattened towards the horizon."""
        far = 1 / (self.depth[at] + 0.12)
        dx, dy = self.random.uniform(0, 512, 2)
        x = (self.x[at] - 0.5) * far * scale
        return sample(table(roughness, 1), x + dx, far * scale * stretch + dy)

    def relief(self, at: npt.NDArray[np.intp], roughness: float, scale: float) -> Floats:
        """How much a rough surface faces the light, about -1..1: the slope of noise towards the light."""
        dx, dy = self.random.uniform(0, 512, 2)
        x, y = self.x[at] * scale + dx, self.y[at] * scale + dy
        noise, step = table(roughness, 2), 3.0
        towards = sample(noise, x + self.light_from * step, y - step)
        slope = towards - sample(noise, x - self.light_from * step, y + step)
        facing: Floats = np.tanh(slope)
        return facing

    def lit(self, albedo: Floats, amount: Floats | float) -> Floats:
        """Albedo [n, 3] in light: `amount` 0 is shade, 1 full sun."""
        amount = np.clip(np.asarray(amount, np.float32), 0, 1.15)
        return albedo * mix(self.palette.shade, self.palette.light, amount)

    def hazed(self, colour: Floats, amount: Floats | float) -> Floats:
        """Colour [n, 3] faded towards the haze by `amount`, 0..1, times the palette's share."""
        amount = np.asarray(amount, np.float32)[..., None] * self.palette.haze_amount
        return colour + (np.array(self.palette.haze, np.float32) - colour) * np.clip(amount, 0, 1)


def canvas(labels: Map, instances: Ids, palette: Palette, random: np.random.Generator) -> Canvas:
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
    x, y, up, down, west, east = (
        np.ascontiguousarray(a, np.float32).ravel() / np.float32(height)
        for a in (columns, rows, above, below, left, right)
    )
    return Canvas(
        palette=palette,
        random=random,
        height=height,
        width=width,
        x=x,
        y=y,
        above=up,
        below=down,
        left=west,
        right=east,
        depth=depth.astype(np.float32).ravel(),
        horizon=horizon,
        sun=sun,
        light_from=light_from,
        instances=instances.ravel(),
        image=np.zeros((height * width, 3), np.float32),
    )


def _horizon(labels: Map) -> float:
    """Where the ground begins, 0..1. Snow counts only below the mountains, whose summits carry snow too."""
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


def mix(a: Colour | Floats, b: Colour | Floats, t: Floats | float) -> Floats:
    """Colours between a (t = 0) and b (t = 1)."""
    low, high = np.asarray(a, np.float32), np.asarray(b, np.float32)
    mixed: Floats = low + (high - low) * np.asarray(t, np.float32)[..., None]
    return mixed


def smooth(t: Floats) -> Floats:
    """Smoothstep: 3 t^2 - 2 t^3 with t clipped to 0..1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
