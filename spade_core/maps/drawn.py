"""Label maps of made-up landscapes, to try a server or run a benchmark without a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from spade_core.config import GeneratorConfig
from spade_core.maps.colours import DEMO_CLASSES
from spade_core.maps.png import LabelMapError

Points = npt.NDArray[np.float64]  # [K, 2] (x, y) in image heights, y downwards

NAMES = tuple(name for name, _ in DEMO_CLASSES)
# The landscape's classes in each preset's own ids, in the order of DEMO_CLASSES (sky .. boat).
SCENE_IDS: dict[str, tuple[int, ...]] = {
    "demo": tuple(range(16)),
    "coco": (156, 105, 156, 134, 126, 154, 123, 168, 153, 149, 158, 148, 127, 150, 118, 8),
    "ade20k": (3, 3, 3, 17, 69, 22, 10, 5, 47, 35, 17, 7, 26, 26, 67, 77),
    "cityscapes": (23, 23, 23, 22, 22, 6, 22, 21, 6, 22, 22, 7, 11, 11, 21, 5),
}
FIRST_THING = 1000  # a house or boat has an instance id of this or more; any other region has its label as the id


@dataclass
class _Canvas:
    """A label map and an instance map that are painted together.

    Attributes:
        random: draws the scene.
        ids: label of each class name.
        aspect: width / height.
        scale: pixels in one image height, the unit of all coordinates.
        labels, instances: the two maps.
        things: houses and boats painted so far.
    """

    random: np.random.Generator
    ids: dict[str, int]
    aspect: float
    scale: float
    labels: Image.Image
    instances: Image.Image
    things: int = 0

    def paint(self, name: str, outline: Points, *, thing: bool = False) -> None:
        """Fill an outline with a class; a `thing` gets the next instance id."""
        corners = [(float(x), float(y)) for x, y in outline * self.scale]
        ImageDraw.Draw(self.labels).polygon(corners, fill=self.ids[name])
        instance = FIRST_THING + self.things if thing else self.ids[name]
        ImageDraw.Draw(self.instances).polygon(corners, fill=instance)

    def stands_on(self, x: float, y: float, *names: str) -> bool:
        """Whether (x, y) lies inside the image, on one of the classes."""
        column, row = int(x * self.scale), int(y * self.scale)
        inside = 0 <= column < self.labels.width and 0 <= row < self.labels.height
        return inside and self.labels.getpixel((column, row)) in {self.ids[name] for name in names}


def demo_map(
    seed: int, config: GeneratorConfig, *, height: int | None = None, width: int | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Draw a landscape: labels uint8 [H, W] in the ids of config.preset, and instances int32 [H, W].

    The same seed gives the same map. The size is the config's unless given. Raises LabelMapError for a preset without
    landscape classes.
    """
    if config.preset not in SCENE_IDS or max(SCENE_IDS[config.preset]) >= config.classes:
        raise LabelMapError(
            f"[demo_map] expected a preset out of {', '.join(SCENE_IDS)} but got '{config.preset}' with "
            f"{config.classes} classes; draw your own maps for it"
        )
    size = (width or config.width, height or config.height)
    # The scene is drawn in the demo's ids, which tell all classes apart. A preset's ids may merge some of them.
    canvas = _Canvas(
        np.random.default_rng(seed),
        {name: i for i, name in enumerate(NAMES)},
        size[0] / size[1],
        size[1],
        Image.new("L", size, 0),
        Image.new("I", size, 0),
    )
    _scene(canvas)
    table = np.array(SCENE_IDS[config.preset], np.uint8)
    labels, instances = np.asarray(canvas.labels), np.asarray(canvas.instances).astype(np.int32)
    stuff = instances < FIRST_THING
    return table[labels], np.where(stuff, table[labels].astype(np.int32), instances)


def _scene(c: _Canvas) -> None:
    r = c.random
    horizon = r.uniform(0.38, 0.6)
    _sky(c, horizon)
    water = r.choice(["none", "lake", "river", "sea"], p=[0.35, 0.3, 0.17, 0.18])
    if r.random() < 0.75:
        _mountains(c, horizon)
    if water != "sea" or r.random() < 0.4:
        _land(c, "hill", _ridge(c, horizon - r.uniform(0.01, 0.06), r.uniform(0.03, 0.12), 2.0, 0.3))
    ground = str(r.choice(["grass", "sand", "snow"], p=[0.8, 0.07, 0.13]))
    _land(c, ground, _ridge(c, horizon + 0.01, 0.015, 2.0, 0.3))
    if water == "sea":
        shore = r.uniform(0.35, 0.75) * (1 - horizon) + horizon
        _land(c, "water", np.array([[-0.1, horizon], [c.aspect + 0.1, horizon]]))
        _land(c, "sand", _ridge(c, shore, 0.08, 1.2, 0.25))
        _land(c, ground, _ridge(c, shore + r.uniform(0.08, 0.2), 0.08, 1.5, 0.3))
    elif water == "lake":
        centre = np.array([r.uniform(0.2, 0.8) * c.aspect, horizon + r.uniform(0.25, 0.6) * (1 - horizon)])
        half = np.array([r.uniform(0.25, 0.5), r.uniform(0.16, 0.26) * (1 - horizon)])
        lake = _blob(r, 0.18)
        c.paint("sand", centre + lake * (half + 0.018))
        c.paint("water", centre + lake * half)
    elif water == "river":
        _winding(c, "water", horizon, r.uniform(0.16, 0.3))
    elif r.random() < 0.8:
        _winding(c, "road", horizon, r.uniform(0.08, 0.15))
    _things(c, horizon)


def _sky(c: _Canvas, horizon: float) -> None:
    r = c.random
    if r.random() < 0.5:
        c.paint(
            "sun",
            [r.uniform(0.1, 0.9) * c.aspect, r.uniform(0.08, horizon * 0.6)] + _blob(r, 0.0) * r.uniform(0.03, 0.06),
        )
    for _ in range(r.integers(0, 5)):
        x, y, size = r.uniform(0, c.aspect), r.uniform(0.03, horizon * 0.65), r.uniform(0.05, 0.12)
        for dx in np.linspace(-1.2, 1.2, r.integers(3, 6)):
            puff = size * (1.1 - 0.5 * abs(dx)) * r.uniform(0.7, 1.1)
            c.paint("cloud", np.array([x + dx * size, y]) + _blob(r, 0.1) * [puff, 0.55 * puff])


def _mountains(c: _Canvas, horizon: float) -> None:
    r = c.random
    height = r.uniform(0.12, 0.3)
    crest = _ridge(c, horizon - height * 0.5, height, 3.0, 0.5)
    _land(c, "mountain", crest)
    if r.random() < 0.6:
        line = _ridge(c, crest[:, 1].min() + height * r.uniform(0.25, 0.5), height * 0.3, 9.0, 0.7)
        lower = np.column_stack([crest[:, 0], np.maximum(crest[:, 1], line[:, 1])])
        c.paint("snow", np.concatenate([crest, lower[::-1]]))


def _things(c: _Canvas, horizon: float) -> None:
    """Place trees, houses, rocks, flowers and boats, the far ones first."""
    r = c.random
    wanted = ["tree"] * r.integers(4, 30) + ["house"] * r.integers(0, 5) + ["rock"] * r.integers(0, 7)
    wanted += ["flower"] * r.integers(0, 4) * 6 + ["boat"] * r.integers(0, 4)
    groves = r.uniform(0, c.aspect, 3)
    feet = []
    for name in wanted:
        x = r.choice(groves) + r.normal(0, 0.12) if name in ("tree", "flower") else r.uniform(0, c.aspect)
        feet.append((float(horizon + (1 - horizon) * r.beta(1.1, 1.6)), float(x), name))
    conifers = r.random() < 0.4
    for y, x, name in sorted(feet):
        near = (y - horizon) / (1 - horizon)
        foot = np.array([x, y])
        if name == "boat" and c.stands_on(x, y, "water"):
            _boat(c, foot, 0.05 + 0.12 * near)
        elif name == "rock" and c.stands_on(x, y, "grass", "sand", "snow", "water"):
            c.paint("rock", foot + _blob(r, 0.2) * [1.0, 0.65] * (0.02 + 0.07 * near) * r.uniform(0.6, 1.2))
        elif name == "flower" and c.stands_on(x, y, "grass"):
            c.paint("flower", foot + _blob(r, 0.2) * [1.6, 0.6] * (0.012 + 0.04 * near))
        elif name == "tree" and c.stands_on(x, y, "grass", "hill", "snow"):
            _tree(c, foot, (0.06 + 0.3 * near) * r.uniform(0.7, 1.2), conifers)
        elif name == "house":
            size = (0.06 + 0.2 * near) * r.uniform(0.8, 1.2)
            if all(c.stands_on(x + dx * size, y, "grass", "hill", "snow", "sand") for dx in (-0.8, 0, 0.8)):
                _house(c, foot, size)


def _tree(c: _Canvas, foot: Points, height: float, conifer: bool) -> None:
    trunk = np.array([[-0.04, 0.0], [-0.04, -0.5], [0.04, -0.5], [0.04, 0.0]])
    c.paint("tree", foot + trunk * height)
    if conifer:
        for top, bottom, half in ((-1.0, -0.6, 0.17), (-0.8, -0.35, 0.24), (-0.6, -0.1, 0.31)):
            c.paint("tree", foot + np.array([[0, top], [half, bottom], [-half, bottom]]) * height)
    else:
        c.paint("tree", foot + (_blob(c.random, 0.11) * [0.36, 0.34] - [0, 0.66]) * height)


def _house(c: _Canvas, foot: Points, size: float) -> None:
    long = c.random.uniform(1.0, 1.7)
    wall = np.array([[-0.5, 0.0], [-0.5, -0.5], [0.5, -0.5], [0.5, 0.0]]) * [long, 1.0]
    roof = np.array([[-0.58, -0.48], [-0.4, -0.9], [0.4, -0.9], [0.58, -0.48]]) * [long, 1.0]
    c.paint("house", foot + wall * size, thing=True)
    c.paint("roof", foot + roof * size, thing=True)
    c.things += 1


def _boat(c: _Canvas, foot: Points, size: float) -> None:
    c.paint("boat", foot + np.array([[-0.6, -0.22], [-0.4, 0.0], [0.4, 0.0], [0.65, -0.25]]) * size, thing=True)
    c.paint("boat", foot + np.array([[0.0, -0.2], [0.02, -1.1], [0.45, -0.32]]) * size, thing=True)
    c.things += 1


def _winding(c: _Canvas, name: str, horizon: float, width: float) -> None:
    """Paint a road or river from the bottom edge to the horizon, narrower with distance."""
    r = c.random
    t = np.linspace(0, 1, 60)  # 0 horizon, 1 bottom edge
    far, near = r.uniform(0.2, 0.8, 2) * c.aspect
    x = far + (near - far) * t + r.uniform(-0.25, 0.25) * np.sin(r.uniform(4, 9) * t) * t * (1.3 - t)
    y = horizon + 0.02 + (1.02 - horizon) * t**1.3
    half = 0.004 + width * t**1.5
    c.paint(name, np.concatenate([np.column_stack([x - half, y]), np.column_stack([x + half, y])[::-1]]))


def _land(c: _Canvas, name: str, crest: Points) -> None:
    """Paint everything below the line `crest`."""
    c.paint(name, np.concatenate([crest, [[c.aspect + 0.1, 1.1], [-0.1, 1.1]]]))


def _ridge(c: _Canvas, y: float, height: float, peaks: float, rough: float) -> Points:
    """Make a line across the image from octaves of linear value noise.

    The first octave has `peaks` peaks in one image height; the height of each is `rough` times the octave before.
    """
    x = np.linspace(-0.1, c.aspect + 0.1, 160)
    line = np.zeros_like(x)
    for octave in range(5):
        count = max(2, round(peaks * 2**octave * (c.aspect + 0.2))) + 1
        knots = c.random.uniform(-0.5, 0.5, count)
        line += rough**octave * np.interp(x, np.linspace(-0.1, c.aspect + 0.1, count), knots)
    return np.column_stack([x, y - height * line])


def _blob(random: np.random.Generator, rough: float) -> Points:
    """Make a closed outline around 0 with a radius of about 1: a circle plus five harmonics."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = np.ones_like(angle)
    for k in range(2, 7):
        radius += rough * random.normal(0, 1.5 / k) * np.cos(k * angle + random.uniform(0, 2 * np.pi))
    return np.column_stack([np.cos(angle), np.sin(angle)]) * np.maximum(radius, 0.3)[:, None]
