"""An endless stream of label maps, in which none comes twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.common.maps import Maps
from spade_core.types import Array

Inputs = tuple[Array, Array | None, Array | None]
"""(labels [N, H, W], instances [N, H, W] or None, style [N, 256] or None)."""


class Stream:
    """Hands out each image of the stream once.

    Attributes:
        next: number of the next image.
    """

    def __init__(self) -> None:
        self.next = 0

    def requests(self, batch: int) -> Iterator[int]:
        """The number of the first image of each request of `batch` images, without end. Not thread-safe."""
        while True:
            self.next += batch
            yield self.next - batch


def inputs_of(maps: Maps, first: int, count: int) -> Inputs:
    """Images first .. first + count - 1 of a stream that repeats no label map for a long time.

    The stream takes the maps in turn. Each time around, the maps are shifted by one more column, then by a row. The
    engine caches what it computes for a map, so a repeated map would cost the convs only.
    """
    of = [(k % len(maps.labels), k // len(maps.labels)) for k in range(first, first + count)]
    labels = np.stack([_shifted(maps.labels[i], turn) for i, turn in of])
    instances = None if maps.instances is None else np.stack([_shifted(maps.instances[i], turn) for i, turn in of])
    return labels, instances, None if maps.style is None else maps.style[[i for i, _ in of]]


def _shifted(one: Array, turn: int) -> Array:
    rows, columns = divmod(turn, one.shape[1])
    return np.roll(one, (rows, columns), axis=(0, 1))
