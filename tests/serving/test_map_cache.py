"""The cache of label maps: equal keys are equal maps, the limit holds, the maps used longest ago go first."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from serving.engines.map_cache import MapCache, MapKey, keys_of


@dataclass(frozen=True, eq=False)
class Memory:
    bytes: int


@dataclass(frozen=True, eq=False)
class Kept:
    memory: Memory = field(default_factory=lambda: Memory(1))


def key(name: str) -> MapKey:
    return MapKey(hash(name), (1, 1), name.encode())


def test_keys_are_equal_where_maps_are() -> None:
    symbols = np.random.default_rng(0).integers(0, 9, (3, 8, 4)).astype(np.uint16)
    symbols[2] = symbols[0]
    first, second, third = keys_of(symbols)
    assert first == third
    assert hash(first) == hash(third)
    assert first != second
    assert hash(first) != hash(second)
    (turned,) = keys_of(symbols[:1].reshape(1, 4, 8))  # the same numbers in another shape
    assert first != turned
    assert first == keys_of(symbols[:, ::-1][:, ::-1])[0]  # not contiguous on the way
    assert first != "map"


def test_maps_of_equal_numbers_are_told_apart() -> None:
    cache: MapCache[Kept] = MapCache(10)
    one, other = MapKey(7, (1, 1), b"one"), MapKey(7, (1, 1), b"other")
    cache.put({one: Kept()})
    assert cache.look_up([one, other]).missing == [other]


def test_a_lookup_tells_kept_maps_from_missing_ones() -> None:
    symbols = np.arange(4, dtype=np.uint16)[[0, 1, 2, 1, 3], None, None].repeat(4, axis=2)  # [5, 1, 4]
    keys = keys_of(symbols)
    cache: MapCache[Kept] = MapCache(10)
    first, second, third, fourth = (Kept() for _ in range(4))
    cache.put({keys[0]: first})
    lookup = cache.look_up(keys)
    assert (lookup.hits, lookup.missing) == (1, [keys[1], keys[2], keys[4]])
    np.testing.assert_array_equal(lookup.missing_maps(symbols), symbols[[1, 2, 4]])
    new = dict(zip(lookup.missing, (second, third, fourth), strict=True))
    assert lookup.complete(new) == [first, second, third, second, fourth]


def test_the_maps_used_longest_ago_go_first() -> None:
    cache: MapCache[Kept] = MapCache(3)
    names = [key(name) for name in "abcd"]
    for name in names[:3]:
        cache.put({name: Kept()})
    cache.look_up([names[0]])  # the first map becomes the one used last
    cache.put({names[3]: Kept()})
    assert cache.bytes == 3
    assert cache.look_up(names).missing == [names[1]]


def test_the_memory_of_a_batch_counts_until_its_last_map_is_dropped() -> None:
    both, one = Memory(2), Memory(1)
    cache: MapCache[Kept] = MapCache(3)
    a, b, c, d = (key(name) for name in "abcd")
    cache.put({a: Kept(both), b: Kept(both)})
    cache.put({c: Kept(one)})
    assert cache.bytes == 3
    cache.make_room(1)  # dropping the first map frees nothing: its neighbour shares the memory
    assert (cache.look_up([a, b]).missing, cache.bytes) == ([a, b], 1)
    assert cache.look_up([c]).hits == 1
    cache.put({d: Kept(Memory(4))})
    assert cache.look_up([d]).hits == 0  # larger than the limit
