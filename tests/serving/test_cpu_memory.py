"""The memory of entries: used again wherever it fits, never twice at once, and bounded."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engines.cpu.codebooks import CodebookCache, MapCodebooks
from serving.engines.cpu.memory import CHUNK, GRAIN, Arena, Block


def test_memory_is_used_again_when_its_last_holder_is_gone() -> None:
    recycler = Arena()
    block = recycler.take(100)
    assert (block.bytes, block.address % 64) == (GRAIN, 0)
    was = block.address
    other = recycler.take(2 * GRAIN)
    assert recycler.free_bytes == CHUNK - 3 * GRAIN
    del block
    assert recycler.take(GRAIN).address == was
    del other
    assert recycler.free_bytes == CHUNK


def test_neighbours_that_are_free_hold_a_larger_block() -> None:
    recycler = Arena()
    blocks = [recycler.take(CHUNK // 4) for _ in range(4)]
    was = blocks[1].address
    del blocks[2], blocks[1]
    assert recycler.take(CHUNK // 2).address == was
    assert recycler.free_bytes == CHUNK // 2


def test_a_block_larger_than_a_chunk_goes_back_to_the_system() -> None:
    recycler = Arena()
    large, part = recycler.take(CHUNK + 1), recycler.take(GRAIN)  # nobody writes there: no page is taken
    del large
    assert recycler.free_bytes == CHUNK - GRAIN
    assert part.bytes == GRAIN


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, CHUNK), st.integers(0, 5)), max_size=40))
def test_no_two_blocks_share_memory(steps: list[tuple[int, int]]) -> None:
    recycler, held = Arena(), list[Block]()
    for size, release in steps:
        held.append(recycler.take(size))
        assert held[-1].bytes >= size
        spans = sorted((block.address, block.address + block.bytes) for block in held)
        assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(spans))
        if release < len(held):
            del held[release]


def test_the_memory_of_a_batch_counts_until_its_last_map_is_dropped() -> None:
    recycler, index, none = Arena(), (np.zeros((1, 1), np.int32),), np.zeros(0, np.uint64)
    both, one = recycler.take(2 * GRAIN), recycler.take(GRAIN)
    cache = CodebookCache(3 * GRAIN)
    a, b, c, d = (((1, 1), name) for name in (b"a", b"b", b"c", b"d"))
    for key, block in ((a, both), (b, both), (c, one)):
        cache.put(key, MapCodebooks(index, (1,), none, none.astype(np.int64), block))
    assert cache.bytes == 3 * GRAIN
    cache.make_room(1)  # the first to go leaves its neighbour, whose memory it is too
    assert (cache.get(a), cache.get(b), cache.bytes) == (None, None, GRAIN)
    assert cache.get(c) is not None
    cache.put(d, MapCodebooks(index, (1,), none, none.astype(np.int64), recycler.take(4 * GRAIN)))
    assert cache.get(d) is None  # larger than all that may be kept
