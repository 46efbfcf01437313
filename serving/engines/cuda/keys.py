"""What a label map is known by: all of it, and a number that is cheap to make."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spade_core.types import Symbols


@dataclass(frozen=True, eq=False)
class MapKey:
    """Equal if the maps are. Python's own hash of so many bytes, or a digest, would take a tenth to a whole image."""

    number: int
    shape: tuple[int, ...]
    content: bytes

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MapKey):
            return NotImplemented
        return (self.number, self.shape, self.content) == (other.number, other.shape, other.content)


def keys_of(symbols: Symbols) -> list[MapKey]:
    """Of each map of symbols [N, H, W], H W a multiple of 4.

    The number is the sum of the map's 64-bit words, each times an odd number of its own, modulo 2^64.
    """
    words = np.ascontiguousarray(symbols).reshape(len(symbols), -1).view(np.uint64)  # [N, H W / 4]
    numbers = words @ _factors(words.shape[1])
    shape = symbols.shape[1:]
    return [MapKey(int(number), shape, one.tobytes()) for number, one in zip(numbers, symbols, strict=True)]


@functools.lru_cache(maxsize=16)
def _factors(count: int) -> npt.NDArray[np.uint64]:
    return np.random.default_rng(0).integers(0, 1 << 63, count, np.uint64) * np.uint64(2) + np.uint64(1)
