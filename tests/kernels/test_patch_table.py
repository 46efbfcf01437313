"""The patch table finds every patch that it still knows, in any map, and never takes one patch for another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.native import native
from kernels.ops.plan import plan

OUTSIDE = 4  # symbols are 0 .. 3


def windows(symbols: npt.NDArray[np.uint16], side: int) -> list[bytes]:
    """The side x side symbols around each pixel."""
    padded = np.pad(symbols, side // 2, constant_values=OUTSIDE)
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side)).reshape(symbols.size, -1)
    return [np.ascontiguousarray(one).tobytes() for one in views]


def read_windows(patches3: npt.NDArray[np.int32], patches5: npt.NDArray[np.int32], k: int) -> list[bytes]:
    """The symbols of each row of patches5, written down tap by tap; all taps that hold a symbol must agree."""
    side, found = 2 * k - 1, []
    for five in patches5.reshape(-1, k, k):
        window = np.full((side, side), -1, np.int64)
        for y, x in np.ndindex(k, k):
            if five[y, x] == len(patches3):
                window[y + k // 2, x + k // 2] = OUTSIDE
                continue
            part = window[y : y + k, x : x + k]
            three = patches3[five[y, x]].reshape(k, k)
            assert ((part == -1) | (part == three)).all()
            part[:] = three
        window[window == -1] = OUTSIDE  # beyond a tap that is outside the image
        found.append(window.astype(np.uint16).tobytes())
    return found


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_every_plan_that_holds_reads_its_own_patches(data: st.DataObject) -> None:
    k = data.draw(st.sampled_from([1, 3, 5]))
    most = data.draw(st.sampled_from([1, 20, 60, 200, 3000]))
    table = native.PatchTable(most, OUTSIDE, k)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    content: dict[int, bytes] = {}  # slot -> the patch whose entries lie there
    plans: list[tuple[list[int], list[bytes], int]] = []  # slots and patch of each pixel, and the lowest position
    for _ in range(data.draw(st.integers(1, 12))):
        size = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
        symbols = random.integers(0, data.draw(st.integers(1, 4)), (1, *size)).astype(np.uint16)
        (level,) = plan(symbols, [size], OUTSIDE, k)
        bound = len(level.patches5)
        if bound > most:
            with pytest.raises(ValueError, match="more patches than the table has slots"):
                table.begin(bound)
            continue
        if data.draw(st.integers(0, 9)) == 0:
            table.forget()
        horizon = table.horizon(bound)
        plans = [one for one in plans if one[2] >= horizon]
        fresh: set[bytes] = set()
        for repeat in range(2):
            table.begin(bound)
            slots = level.index[0].copy()
            oldest = table.place(level.patches3, level.patches5, slots)
            patches3, patches5, first = table.new_patches(k * k)
            new = read_windows(patches3, patches5, k)
            assert first + len(new) <= most
            assert len(set(new)) == len(new)
            # A patch of the older half of the slots may be made new again; one of the last call is not so old.
            assert not (repeat and fresh & set(new) and 4 * bound <= most), "a patch that is known was made new"
            fresh = set(new)
            content |= {first + i: patch for i, patch in enumerate(new)}
            plans = [one for one in plans if one[2] >= table.horizon(0)]
            plans.append((slots.ravel().tolist(), windows(symbols[0], 2 * k - 1), oldest))
            for of_pixels, patches, _oldest in plans:
                assert [content[slot] for slot in of_pixels] == patches


def test_a_common_patch_does_not_make_plans_short_lived() -> None:
    """Each map holds the patch of label 0 and 16 patches of its own; the last plans for half the slots must hold."""
    table = native.PatchTable(340, 1000, 1)
    oldest = []
    for number in range(200):
        symbols = np.arange(16 * number % 999, 16 * number % 999 + 17, dtype=np.uint16)[None, None] % 1000
        symbols[0, 0, 0] = 0
        (level,) = plan(symbols, [(1, 17)], 1000, 1)
        table.begin(len(level.patches5))
        oldest.append(table.place(level.patches3, level.patches5, level.index[0]))
    held = sum(position >= table.horizon(0) for position in oldest[-11:])
    assert held >= 8


def test_wrong_arguments_are_refused() -> None:
    table = native.PatchTable(4, OUTSIDE, 3)
    table.begin(1)
    (level,) = plan(np.array([[[0, 1]]], np.uint16), [(1, 2)], OUTSIDE, 3)
    with pytest.raises(ValueError, match="more patches than it announced"):
        table.place(level.patches3, level.patches5, level.index[0].copy())
    with pytest.raises(ValueError, match="beyond patches5"):
        table.place(level.patches3, level.patches5, np.full((1, 2), 9, np.int32))
