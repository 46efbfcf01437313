"""The shapes of the painter written a second time, in NumPy: masks bool [height, width]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Point = tuple[int, int]


def segment(height: int, width: int, a: Point, b: Point, diameter: int) -> Mask:
    """Pixels at most half a diameter from the segment: from an end, or by Pythagoras from the line between."""
    y, x = np.mgrid[:height, :width]
    d = (b[0] - a[0], b[1] - a[1])
    length2 = d[0] ** 2 + d[1] ** 2
    along = (x - a[0]) * d[0] + (y - a[1]) * d[1]
    from_a2 = (x - a[0]) ** 2 + (y - a[1]) ** 2
    from_b2 = (x - b[0]) ** 2 + (y - b[1]) ** 2
    ends = 4 * np.minimum(from_a2, from_b2) <= diameter**2
    between = (along > 0) & (along < length2) & (4 * (from_a2 * length2 - along**2) <= diameter**2 * length2)
    return np.asarray(ends | between)


def rectangle(height: int, width: int, a: Point, b: Point) -> Mask:
    y, x = np.mgrid[:height, :width]
    across = (x >= min(a[0], b[0])) & (x <= max(a[0], b[0]))
    down = (y >= min(a[1], b[1])) & (y <= max(a[1], b[1]))
    return np.asarray(across & down)


def polygon(height: int, width: int, points: list[Point]) -> Mask:
    """A pixel is inside where a ray to the right crosses the outline an odd number of times, or on it."""
    mask = np.zeros((height, width), bool)
    y, x = np.mgrid[:height, :width]
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        if ay != by:
            low, high = min(ay, by), max(ay, by)
            # x < ax + (y - ay) (bx - ax) / (by - ay), multiplied by the positive |by - ay|
            sign = 1 if by > ay else -1
            left = (x - ax) * abs(by - ay) < (y - ay) * (bx - ax) * sign
            mask ^= (y >= low) & (y < high) & left
    for a, b in zip(points, points[1:] + points[:1], strict=True):
        mask |= segment(height, width, a, b, 1)
    return mask


def flood(labels: npt.NDArray[np.uint8], at: Point, locked: Mask) -> Mask:
    """Grow from one pixel to its neighbours of the same label until nothing is added."""
    x, y = at
    same = (labels == labels[y, x]) & ~locked
    mask = np.zeros(labels.shape, bool)
    mask[y, x] = same[y, x]
    while True:
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        grown &= same
        if (grown == mask).all():
            return mask
        mask = grown
