"""Palettes of a landscape: its colours at noon, at sunset, at night, in winter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]  # (red, green, blue), 0..1


class SceneError(ValueError):
    """A style, size or count that cannot be drawn; the message holds the value and the choices."""


@dataclass(frozen=True)
class Palette:
    """The colours of one style. Surfaces are albedos in white light; `light` and `shade` multiply them.

    Attributes:
        sky_top, sky_low: zenith and horizon.
        cloud_lit, cloud_dark: sunny and shadowed side of clouds.
        sun: disc and glow.
        light, shade: multipliers of surfaces in and out of the sun.
        haze, haze_amount: the colour that distance fades to, and its share at the horizon, 0..1.
        grass, foliage, hill, water: surfaces that change with season and hour.
        snow: share of the surfaces that carry snow where they can, 0..1.
        night: strength of stars, moon and lit windows, 0..1.
    """

    sky_top: Colour
    sky_low: Colour
    cloud_lit: Colour
    cloud_dark: Colour
    sun: Colour
    light: Colour
    shade: Colour
    haze: Colour
    haze_amount: float
    grass: Colour
    foliage: Colour
    hill: Colour
    water: Colour
    snow: float
    night: float


_NOON = Palette(
    sky_top=(0.20, 0.46, 0.84),
    sky_low=(0.68, 0.84, 0.96),
    cloud_lit=(1.0, 1.0, 1.0),
    cloud_dark=(0.72, 0.77, 0.85),
    sun=(1.0, 0.97, 0.80),
    light=(1.06, 1.03, 0.96),
    shade=(0.48, 0.55, 0.66),
    haze=(0.70, 0.82, 0.93),
    haze_amount=0.35,
    grass=(0.38, 0.60, 0.20),
    foliage=(0.16, 0.38, 0.13),
    hill=(0.36, 0.50, 0.24),
    water=(0.06, 0.25, 0.42),
    snow=0.0,
    night=0.0,
)

STYLES: dict[str, Palette] = {
    "noon": _NOON,
    "morning": replace(
        _NOON,
        sky_top=(0.45, 0.64, 0.86),
        sky_low=(0.99, 0.88, 0.74),
        cloud_lit=(1.0, 0.94, 0.86),
        cloud_dark=(0.74, 0.70, 0.76),
        sun=(1.0, 0.93, 0.70),
        light=(1.08, 0.97, 0.82),
        shade=(0.44, 0.48, 0.60),
        haze=(0.95, 0.88, 0.80),
        haze_amount=0.62,
        water=(0.20, 0.34, 0.46),
    ),
    "sunset": replace(
        _NOON,
        sky_top=(0.22, 0.20, 0.46),
        sky_low=(1.0, 0.58, 0.24),
        cloud_lit=(1.0, 0.62, 0.42),
        cloud_dark=(0.46, 0.26, 0.42),
        sun=(1.0, 0.86, 0.50),
        light=(1.02, 0.62, 0.40),
        shade=(0.30, 0.24, 0.34),
        haze=(0.92, 0.52, 0.34),
        haze_amount=0.50,
        water=(0.22, 0.16, 0.28),
    ),
    "dusk": replace(
        _NOON,
        sky_top=(0.14, 0.16, 0.40),
        sky_low=(0.76, 0.50, 0.66),
        cloud_lit=(0.74, 0.54, 0.70),
        cloud_dark=(0.30, 0.26, 0.46),
        sun=(1.0, 0.80, 0.72),
        light=(0.60, 0.50, 0.70),
        shade=(0.24, 0.22, 0.38),
        haze=(0.58, 0.46, 0.64),
        haze_amount=0.55,
        water=(0.14, 0.16, 0.34),
        night=0.35,
    ),
    "night": replace(
        _NOON,
        sky_top=(0.03, 0.05, 0.16),
        sky_low=(0.14, 0.20, 0.38),
        cloud_lit=(0.24, 0.28, 0.42),
        cloud_dark=(0.08, 0.10, 0.20),
        sun=(0.95, 0.95, 0.86),
        light=(0.38, 0.46, 0.66),
        shade=(0.13, 0.17, 0.30),
        haze=(0.10, 0.15, 0.29),
        haze_amount=0.45,
        water=(0.03, 0.07, 0.18),
        night=1.0,
    ),
    "winter": replace(
        _NOON,
        sky_top=(0.56, 0.68, 0.82),
        sky_low=(0.90, 0.93, 0.96),
        cloud_lit=(0.97, 0.98, 1.0),
        cloud_dark=(0.74, 0.79, 0.86),
        sun=(1.0, 0.97, 0.90),
        light=(0.98, 1.0, 1.04),
        shade=(0.50, 0.58, 0.72),
        haze=(0.86, 0.90, 0.95),
        haze_amount=0.50,
        grass=(0.58, 0.56, 0.44),
        foliage=(0.20, 0.28, 0.24),
        hill=(0.58, 0.60, 0.60),
        water=(0.26, 0.38, 0.48),
        snow=0.75,
    ),
    "autumn": replace(
        _NOON,
        sky_top=(0.34, 0.54, 0.80),
        sky_low=(0.86, 0.86, 0.82),
        cloud_dark=(0.70, 0.70, 0.74),
        light=(1.08, 0.98, 0.84),
        shade=(0.46, 0.46, 0.54),
        haze=(0.84, 0.82, 0.78),
        haze_amount=0.42,
        grass=(0.62, 0.56, 0.24),
        foliage=(0.68, 0.32, 0.08),
        hill=(0.58, 0.42, 0.18),
        water=(0.14, 0.26, 0.34),
    ),
    "overcast": replace(
        _NOON,
        sky_top=(0.50, 0.54, 0.60),
        sky_low=(0.76, 0.78, 0.80),
        cloud_lit=(0.84, 0.85, 0.87),
        cloud_dark=(0.44, 0.47, 0.52),
        sun=(0.96, 0.95, 0.90),
        light=(0.74, 0.76, 0.78),
        shade=(0.44, 0.47, 0.52),
        haze=(0.72, 0.75, 0.78),
        haze_amount=0.55,
        grass=(0.36, 0.48, 0.24),
        foliage=(0.16, 0.30, 0.16),
        hill=(0.34, 0.42, 0.30),
        water=(0.24, 0.32, 0.38),
    ),
}


def palette(style: str) -> Palette:
    """The palette called `style`. Raises SceneError, which lists the names."""
    if style not in STYLES:
        raise SceneError(f"[scenes] expected a style out of {', '.join(STYLES)} but got {style!r}")
    return STYLES[style]


def varied(base: Palette, random: np.random.Generator) -> Palette:
    """A palette near `base`: no two noons are the same."""
    return replace(
        base,
        sky_top=_near(base.sky_top, random),
        sky_low=_near(base.sky_low, random),
        light=_near(base.light, random),
        grass=_near(base.grass, random),
        foliage=_near(base.foliage, random),
        hill=_near(base.hill, random),
        water=_near(base.water, random),
        haze_amount=base.haze_amount * random.uniform(0.7, 1.2),
    )


def _near(colour: Colour, random: np.random.Generator) -> Colour:
    scale: npt.NDArray[np.float64] = random.uniform(0.93, 1.07) * random.uniform(0.95, 1.05, 3)
    red, green, blue = (float(c * s) for c, s in zip(colour, scale, strict=True))
    return red, green, blue
