"""Plan: the kernel equals its NumPy specification, and both equal the definition written a third time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kernels.layouts import Symbols
from kernels.native import native
from kernels.ops.plan import Level, Sizes, concatenate, plan, plan_maps, plan_numpy
from kernels.program import Pool

COCO_SIZES = [(8 << i, 8 << i) for i in range(6)]
FIELDS = ("patches3", "patches5", "index", "patches3_offsets", "patches5_offsets")


@st.composite
def batches(draw: st.DrawFn) -> tuple[Symbols, Sizes, int, int]:
    """Draw maps from one symbol everywhere to a different symbol at every pixel."""
    maps, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    n_symbols = draw(st.sampled_from([1, 2, 5, 366, 65535]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    symbols = random.integers(0, n_symbols, (maps, height, width)).astype(np.uint16)
    block = draw(st.integers(1, 8))  # squares of one symbol, like the regions of a label map
    symbols = symbols[:, np.arange(height)[:, None] // block, np.arange(width) // block]
    size = st.tuples(st.integers(1, 40), st.integers(1, 40))
    sizes = [*draw(st.lists(size, min_size=1, max_size=2)), (height, width)]
    return symbols, sizes, n_symbols, draw(st.sampled_from([1, 3, 5]))


def assert_equal(left: Sequence[Level], right: Sequence[Level]) -> None:
    assert len(left) == len(right)
    for level, (one, other) in enumerate(zip(left, right, strict=True)):
        for field in FIELDS:
            a, b = getattr(one, field), getattr(other, field)
            assert a.dtype == b.dtype, (level, field)
            assert a.flags.c_contiguous, (level, field)
            np.testing.assert_array_equal(a, b, err_msg=f"level {level}, {field}")


def assert_is_the_neighbourhood(level: Level, symbols: Symbols, n_symbols: int, kernel_size: int) -> None:
    """patches3[patches5[index]] equals slices of the padded map; a patch centred outside the image is row U3."""
    _, height, width = level.index.shape
    radius, outside = kernel_size // 2, len(level.patches3)
    rows = [i * symbols.shape[1] // height for i in range(height)]
    columns = [j * symbols.shape[2] // width for j in range(width)]
    zero_row = np.full((1, kernel_size**2), -1, np.int32)
    patches3 = np.concatenate([level.patches3, zero_row])
    for n, one in enumerate(symbols):
        padded = np.pad(one[np.ix_(rows, columns)].astype(np.int32), 2 * radius, constant_values=n_symbols)
        for y in range(height):
            for x in range(width):
                tap = 0
                for v in range(y - radius, y + radius + 1):
                    for u in range(x - radius, x + radius + 1):
                        inside = 0 <= v < height and 0 <= u < width
                        expected = padded[v + radius : v + 3 * radius + 1, u + radius : u + 3 * radius + 1].ravel()
                        number = level.patches5[level.index[n, y, x], tap]
                        assert inside == (number != outside)
                        assert (patches3[number] == (expected if inside else zero_row)).all(), (n, y, x, tap)
                        tap += 1


def assert_numbered_in_order_of_appearance(numbers: npt.NDArray[np.int32], start: int, end: int) -> None:
    seen, first = np.unique(numbers, return_index=True)
    assert seen.tolist() == list(range(start, end))
    assert (np.diff(first) > 0).all()


@settings(deadline=None, max_examples=150)
@given(batches())
def test_native_is_the_specification(batch: tuple[Symbols, Sizes, int, int]) -> None:
    assert_equal(plan(*batch), plan_numpy(*batch))


@settings(deadline=None, max_examples=15)
@given(batches())
def test_rows_are_the_neighbourhood_of_each_pixel(batch: tuple[Symbols, Sizes, int, int]) -> None:
    symbols, sizes, n_symbols, kernel_size = batch
    symbols, sizes = symbols[:2, :12, :12], [(min(h, 12), min(w, 12)) for h, w in sizes]
    for level in plan(symbols, sizes, n_symbols, kernel_size):
        assert_is_the_neighbourhood(level, symbols, n_symbols, kernel_size)


@settings(deadline=None, max_examples=50)
@given(batches())
def test_rows_are_distinct_and_in_order_of_first_appearance(batch: tuple[Symbols, Sizes, int, int]) -> None:
    for level in plan(*batch):
        for n in range(len(level.index)):
            start5, end5 = level.patches5_offsets[n : n + 2]
            assert_numbered_in_order_of_appearance(level.index[n].ravel(), start5, end5)
            rows3 = level.patches3[slice(*level.patches3_offsets[n : n + 2])]
            rows5 = level.patches5[start5:end5]
            assert len(np.unique(rows3, axis=0)) == len(rows3)
            assert len(np.unique(rows5, axis=0)) == len(rows5)
            centres = rows5[:, rows5.shape[1] // 2][level.index[n].ravel() - start5]
            assert_numbered_in_order_of_appearance(centres, *level.patches3_offsets[n : n + 2])


@settings(deadline=None, max_examples=50)
@given(batches())
def test_no_map_depends_on_its_batch(batch: tuple[Symbols, Sizes, int, int]) -> None:
    symbols, sizes, n_symbols, kernel_size = batch
    together = plan(symbols, sizes, n_symbols, kernel_size)
    for n in range(len(symbols)):
        for level, alone in zip(together, plan(symbols[n : n + 1], sizes, n_symbols, kernel_size), strict=True):
            start3, end3 = level.patches3_offsets[n : n + 2]
            start5, end5 = level.patches5_offsets[n : n + 2]
            np.testing.assert_array_equal(level.patches3[start3:end3], alone.patches3)
            own5 = level.patches5[start5:end5]
            own5 = np.where(own5 == len(level.patches3), len(alone.patches3), own5 - start3)
            np.testing.assert_array_equal(own5, alone.patches5)
            np.testing.assert_array_equal(level.index[n] - start5, alone.index[0])


def test_plans_of_single_maps_and_of_batches_concatenate_to_the_plan_of_all() -> None:
    symbols = np.random.default_rng(3).integers(0, 3, (4, 9, 11)).astype(np.uint16)
    sizes = [(9, 11), (4, 5)]
    parts = [plan(symbols[a:b], sizes, 3, 3) for a, b in [(0, 1), (1, 3), (3, 4)]]
    assert_equal(concatenate(parts), plan_numpy(symbols, sizes, 3, 3))


def test_one_symbol_everywhere_has_a_patch_per_distance_to_the_border() -> None:
    level = plan(np.zeros((1, 16, 16), np.uint16), [(16, 16)], 1, 3)[0]
    assert (len(level.patches3), len(level.patches5)) == (9, 25)
    assert (level.index[0, 2:-2, 2:-2] == level.index[0, 2, 2]).all()


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_one_pixel(kernel_size: int) -> None:
    level = plan(np.full((1, 1, 1), 6, np.uint16), [(1, 1)], 7, kernel_size)[0]
    centre = kernel_size**2 // 2
    around3, around5 = np.full(kernel_size**2, 7), np.full(kernel_size**2, 1)
    around3[centre], around5[centre] = 6, 0
    assert (level.patches3.tolist(), level.patches5.tolist()) == ([around3.tolist()], [around5.tolist()])
    assert level.index.tolist() == [[[0]]]


def test_kernel_size_1_has_one_row_per_symbol() -> None:
    level = plan(np.array([[[4, 4, 2], [0, 2, 4]]], np.uint16), [(2, 3)], 5, 1)[0]
    assert level.patches3.tolist() == [[4], [2], [0]]
    assert level.patches5.tolist() == [[0], [1], [2]]
    assert level.index.tolist() == [[[0, 0, 1], [2, 1, 0]]]


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_every_pixel_different(kernel_size: int) -> None:
    symbols = np.random.default_rng(0).permutation(65535)[: 255 * 255].astype(np.uint16).reshape(1, 255, 255)
    sizes = [(255, 255), (64, 32)]
    levels = plan(symbols, sizes, 65535, kernel_size)
    for level, (height, width) in zip(levels, sizes, strict=True):
        assert len(level.patches3) == len(level.patches5) == height * width
        np.testing.assert_array_equal(level.index.ravel(), np.arange(height * width))
    assert_equal(levels[1:], plan_numpy(symbols, sizes[1:], 65535, kernel_size))


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_more_patches_than_symbols_can_be_packed_into_64_bits_by_threes(kernel_size: int) -> None:
    """More than 2^21 distinct patches: three patch numbers do not fit one 64-bit key."""
    random = np.random.default_rng(1).integers(0, 65535, (1, 1536, 1536)).astype(np.uint16)
    level = plan(random, [(1536, 1536)], 65535, kernel_size)[0]
    padded = np.pad(random[0], kernel_size // 2, constant_values=65535)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size, kernel_size)).reshape(1536**2, -1)
    centres = level.patches5[:, kernel_size**2 // 2]
    np.testing.assert_array_equal(level.patches3[centres[level.index.ravel()]], windows)
    if kernel_size == 3:
        assert len(level.patches3) == len(level.patches5) == 1536**2 > 2**21
        np.testing.assert_array_equal(level.index.ravel(), np.arange(1536**2))


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_patches_of_a_large_map_that_come_back_keep_their_number(kernel_size: int) -> None:
    tile = np.random.default_rng(5).integers(0, 65535, (100, 100)).astype(np.uint16)
    symbols = np.tile(tile, (1, 2, 2))
    native = plan(symbols, [(200, 200)], 65535, kernel_size)
    assert_equal(native, plan_numpy(symbols, [(200, 200)], 65535, kernel_size))
    assert len(native[0].patches5) < 200 * 200 / 3


def test_maps_that_are_not_contiguous_and_rectangular_levels() -> None:
    symbols = np.random.default_rng(2).integers(0, 4, (2, 20, 30)).astype(np.uint16)
    turned = symbols.transpose(0, 2, 1)[:, ::2, ::-1]
    assert_equal(plan(turned, [(7, 31), (15, 20)], 4, 3), plan_numpy(turned.copy(), [(7, 31), (15, 20)], 4, 3))


@pytest.mark.parametrize("threads", [1, 2, 5])
@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_a_pool_plans_as_one_thread_does(batch: tuple[Symbols, Sizes, int, int], threads: int) -> None:
    pool = Pool(threads)
    for _ in range(2):  # the second call reuses the scratch of the first
        assert_equal(concatenate(plan_maps(*batch, pool)), plan(*batch))


def test_threads_plan_on_one_pool() -> None:
    symbols, pool = np.random.default_rng(4).integers(0, 9, (8, 64, 64)).astype(np.uint16), Pool(2)
    with ThreadPoolExecutor(4) as threads:
        plans = list(threads.map(lambda one: plan_maps(one[None], COCO_SIZES, 9, 3, pool)[0], symbols))
    assert_equal(concatenate(plans), plan(symbols, COCO_SIZES, 9, 3))


def test_threads_plan_at_the_same_time() -> None:
    symbols = np.random.default_rng(4).integers(0, 9, (8, 64, 64)).astype(np.uint16)
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda one: plan(one[None], COCO_SIZES, 9, 3), symbols))
    assert_equal(concatenate(plans), plan(symbols, COCO_SIZES, 9, 3))


def test_other_threads_run_while_a_map_is_planned() -> None:
    symbols = np.random.default_rng(6).integers(0, 65535, (1024, 1024)).astype(np.uint16)
    started, done = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        native.plan_maps(symbols[None], [(1024, 1024)], 65535, 5, None)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    turns = 0
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 5


def real_symbols(folder: Path, label: Path) -> npt.NDArray[np.uint16]:
    """One COCO-Stuff map at 256x256 as symbols label * 2 + edge."""
    labels, instances = (
        np.asarray(Image.open(path).resize((256, 256), Image.Resampling.NEAREST)).astype(np.int64)
        for path in (label, folder / "inst" / label.name)
    )
    edges = np.zeros(labels.shape, np.int64)
    for before, after in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = instances[before] != instances[after]
        edges[before] |= differs
        edges[after] |= differs
    return (np.where(labels == 255, 182, labels) * 2 + edges).astype(np.uint16)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_real_maps_at_all_six_levels(real_maps: Path, kernel_size: int) -> None:
    paths = sorted((real_maps / "label").glob("*.png"))
    symbols = np.stack([real_symbols(real_maps, path) for path in paths])
    assert_equal(plan(symbols, COCO_SIZES, 366, kernel_size), plan_numpy(symbols, COCO_SIZES, 366, kernel_size))
