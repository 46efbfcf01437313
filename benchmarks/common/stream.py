"""An endless stream of label maps, in which none comes twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.common.maps import Maps
from kernels.constants import DONT_CARE
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

    The stream takes the maps in turn. Each time around, the maps are shifted by one more column, then by a row, and
    their classes are exchanged. The engine keeps what it computes for a map and for a patch of labels, so a repeated
    map would cost the convs only, and a shifted map little more.
    """
    of = [(k % len(maps.labels), k // len(maps.labels)) for k in range(first, first + count)]
    classes = int(maps.labels[maps.labels < DONT_CARE].max(initial=0)) + 1
    labels = np.stack([_shifted(_exchanged(maps.labels[i], classes, turn), turn) for i, turn in of])
    instances = None if maps.instances is None else np.stack([_shifted(maps.instances[i], turn) for i, turn in of])
    return labels, instances, None if maps.style is None else maps.style[[i for i, _ in of]]


def _exchanged(labels: Array, classes: int, turn: int) -> Array:
    """Other classes in place of 0 .. classes - 1; none for turn 0. 255 may be "don't care", so it stays."""
    to = np.arange(256, dtype=np.uint8)
    if turn:
        to[:classes] = np.random.default_rng(turn).permutation(classes)
    exchanged: Array = to[labels]
    return exchanged


def _shifted(one: Array, turn: int) -> Array:
    rows, columns = divmod(turn, one.shape[1])
    return np.roll(one, (rows, columns), axis=(0, 1))
