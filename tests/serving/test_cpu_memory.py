"""The arena of the cpu engine: memory is reused wherever it fits, never handed out twice at once, and bounded."""

from __future__ import annotations

import itertools
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engines.cpu.memory import CHUNK, GRAIN, Arena, Block


def test_memory_is_used_again_when_its_last_holder_is_gone() -> None:
    arena = Arena()
    block = arena.take(100)
    assert (block.bytes, block.address % 64) == (GRAIN, 0)
    start = block.address
    other = arena.take(2 * GRAIN)
    assert arena.take(CHUNK - 3 * GRAIN).address == start + 3 * GRAIN  # all the rest of the chunk is free
    del block
    assert arena.take(GRAIN).address == start
    del other
    assert arena.take(CHUNK).address == start


def test_neighbours_that_are_free_hold_a_larger_block() -> None:
    arena = Arena()
    blocks = [arena.take(CHUNK // 4) for _ in range(4)]
    start = blocks[1].address
    del blocks[2], blocks[1]
    assert arena.take(CHUNK // 2).address == start
    assert arena.take(CHUNK // 2).address == start


def test_a_block_larger_than_a_chunk_goes_back_to_the_system() -> None:
    arena = Arena()
    large, part = arena.take(CHUNK + 1), arena.take(GRAIN)  # nothing is written, so the system gives no page
    memory = weakref.ref(large._span.chunk)
    del large
    assert arena.take(CHUNK - GRAIN).address == part.address + GRAIN  # the rest of the other chunk
    assert memory() is None
    assert part.bytes == GRAIN


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, CHUNK), st.integers(0, 5)), max_size=40))
def test_no_two_blocks_share_memory(steps: list[tuple[int, int]]) -> None:
    arena, held = Arena(), list[Block]()
    for size, release in steps:
        held.append(arena.take(size))
        assert held[-1].bytes >= size
        spans = sorted((block.address, block.address + block.bytes) for block in held)
        assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(spans))
        if release < len(held):
            del held[release]
