"""One scene from a seed: label map, instance map, image, and the name of its style."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spade_core.config import ConfigError, preset
from spade_core.maps.drawn import demo_map
from trainer.scenes.lit.render import OVERSAMPLING, render_lit
from trainer.scenes.render import render
from trainer.scenes.styles import STYLES, SceneError, palette, varied

LOOKS = ("flat", "lit")
"""How a scene is drawn: flat colours, which the shipped judges know, or lit surfaces."""


@dataclass(frozen=True)
class Scene:
    """A drawn landscape.

    Attributes:
        labels: uint8 [H, W], demo ids 0..15.
        instances: int32 [H, W].
        image: RGB uint8 [H, W, 3].
        style: name in `STYLES`.
    """

    labels: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32]
    image: npt.NDArray[np.uint8]
    style: str


def scene(seed: int, *, height: int, width: int, style: str | None = None, look: str = "flat") -> Scene:
    """The scene of a seed >= 0, in `style` or in the seed's own style. The same arguments give the same scene.

    `look` is one of `LOOKS`; the label map is the same in each. Raises SceneError.
    """
    if look not in LOOKS:
        raise SceneError(f"[scenes] expected a look out of {', '.join(LOOKS)} but got {look!r}")
    if seed < 0:
        raise SceneError(f"[scenes] expected a seed of 0 or more but got {seed}")
    random = np.random.default_rng([seed, 0xC0105])
    drawn = str(random.choice(list(STYLES)))
    name = drawn if style is None else style
    colours = varied(palette(name), random)
    try:
        config = replace(preset("demo"), height=height, width=width)
    except ConfigError as error:
        raise SceneError(str(error).replace("[config]", "[scenes]")) from None
    labels, instances = demo_map(seed, config)
    if look == "flat":
        return Scene(labels, instances, render(labels, instances, colours, random), name)
    large = demo_map(seed, config, height=OVERSAMPLING * height, width=OVERSAMPLING * width)
    return Scene(labels, instances, render_lit(*large, colours, random), name)
