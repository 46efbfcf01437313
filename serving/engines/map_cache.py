"""A cache of what an engine computes for a label map alone: its plan and its codebooks."""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from spade_core.types import Symbols

# ---- Keys ----


@dataclass(frozen=True, eq=False)
class MapKey:
    """The identity of a label map: two keys are equal where the maps are equal, symbol by symbol.

    `number` is a cheap hash of the content. Python's own hash of the content takes twice as long to compute.
    """

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
    """The key of each map of symbols [N, H, W], where H W is a multiple of 4.

    The number is the sum of the map's 64-bit words, each times its own odd factor, modulo 2^64.
    """
    words = np.ascontiguousarray(symbols).reshape(len(symbols), -1).view(np.uint64)  # [N, H W / 4]
    numbers = words @ _factors(words.shape[1])
    shape = symbols.shape[1:]
    return [MapKey(int(number), shape, one.tobytes()) for number, one in zip(numbers, symbols, strict=True)]


@functools.lru_cache(maxsize=16)
def _factors(count: int) -> npt.NDArray[np.uint64]:
    return np.random.default_rng(0).integers(0, 1 << 63, count, np.uint64) * np.uint64(2) + np.uint64(1)


# ---- Cache ----


class Memory(Protocol):
    """The memory that the maps of one batch share. Hashed by identity."""

    @property
    def bytes(self) -> int: ...


class Cacheable(Protocol):
    """What an engine keeps of one label map."""

    @property
    def memory(self) -> Memory: ...


Codebooks = TypeVar("Codebooks", bound=Cacheable)


@dataclass(frozen=True, eq=False)
class Lookup(Generic[Codebooks]):
    """What the cache knows of a batch of maps.

    Attributes:
        keys: the key of each map.
        kept: codebooks by key, for the maps in the cache.
        missing: the distinct keys of the other maps, in order of first appearance.
    """

    keys: Sequence[MapKey]
    kept: Mapping[MapKey, Codebooks]
    missing: Sequence[MapKey]

    @property
    def hits(self) -> int:
        """Maps of the batch that are in the cache."""
        return sum(key in self.kept for key in self.keys)

    def missing_maps(self, symbols: Symbols) -> Symbols:
        """The batch's symbols [N, H, W] -> symbols of the missing maps, each once."""
        if len(self.missing) == len(self.keys):
            return symbols
        return symbols[[self.keys.index(key) for key in self.missing]]

    def complete(self, new: Mapping[MapKey, Codebooks]) -> list[Codebooks]:
        """The codebooks of every map of the batch, once the missing ones are made."""
        known = {**self.kept, **new}
        return [known[key] for key in self.keys]


class MapCache(Generic[Codebooks]):
    """The codebooks of the label maps used last, in at most `limit` bytes; 0 keeps none. Not thread-safe.

    Maps of one batch share memory, which counts in full until the last of these maps is dropped.

    Attributes:
        bytes: the memory that the kept maps hold.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._maps: OrderedDict[MapKey, Codebooks] = OrderedDict()
        self._holders: Counter[Memory] = Counter()  # how many kept maps hold each memory

    def look_up(self, keys: Sequence[MapKey]) -> Lookup[Codebooks]:
        """Find the maps of a batch. Every map found becomes the one used last."""
        kept = {key: self._maps[key] for key in keys if key in self._maps}
        for key in kept:
            self._maps.move_to_end(key)
        return Lookup(keys, kept, list(dict.fromkeys(key for key in keys if key not in kept)))

    def put(self, new: Mapping[MapKey, Codebooks]) -> None:
        """Keep the codebooks of maps that are not in the cache yet, unless their memory alone exceeds the limit."""
        for key, codebooks in new.items():
            memory = codebooks.memory
            if memory.bytes > self.limit:
                continue
            self._maps[key] = codebooks
            self.bytes += 0 if self._holders[memory] else memory.bytes
            self._holders[memory] += 1
        self.make_room(0)

    def make_room(self, size: int) -> None:
        """Drop the maps used longest ago until `size` more bytes fit within the limit."""
        while self._maps and self.bytes + size > self.limit:
            memory = self._maps.popitem(last=False)[1].memory
            self._holders[memory] -= 1
            if not self._holders[memory]:
                del self._holders[memory]
                self.bytes -= memory.bytes
