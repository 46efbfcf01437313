"""A step on a rectangle computes these pixels with the bits of the whole run, and leaves the others as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import ISAS, each_isa, plain, poison, random_values

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import Array, empty_padded, empty_plain, to_entries, to_padded
from kernels.ops.conv import conv, pack_conv
from kernels.ops.image import image
from kernels.ops.modulate import Modulation, modulate
from kernels.ops.modulated_conv import Shortcut, modulated_conv
from kernels.ops.norm import norm
from kernels.program import Entries, Pool, Program, Step, StepError
from kernels.rectangles import EMPTY, Rectangle

POOLS = {threads: Pool(threads) for threads in (1, 3)} if ISAS else {}
PATCHES = 9


def rectangles(height: int, width: int) -> st.SearchStrategy[Rectangle]:
    def spans(size: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda pair: (min(pair), max(pair)))

    return st.tuples(spans(height), spans(width)).map(lambda s: Rectangle(s[0][0], s[1][0], s[0][1], s[1][1]))


def run(step: Step, out: Array, rectangle: Rectangle | None, threads: int) -> Array:
    program = Program([step])
    if rectangle is not None:
        program.limit(0, rectangle)
    poison(out)
    POOLS[threads].run(program)
    return out.view(np.uint8).reshape((*out.shape[:-1], -1)).copy()


def assert_part(make: Callable[[], tuple[Step, Array]], rectangle: Rectangle, threads: int, columns: int) -> None:
    """The step's output has axis 1 as rows and axis `columns` as columns."""
    step, out = make()
    whole, part = run(step, out, None, 1), run(step, out, rectangle, threads)
    inside = np.zeros(whole.shape, bool)
    index: list[slice] = [slice(None)] * whole.ndim
    index[1], index[columns] = rectangle.slices
    inside[tuple(index)] = True
    assert np.array_equal(part[inside], whole[inside])
    assert (part[~inside] == 0xFF).all()


def modulation(random: np.random.Generator, isa: Isa, channels: int, size: tuple[int, int], shift: int) -> Modulation:
    table = to_entries(*random_values(random, (2, PATCHES, channels), isa), isa_dtype(isa))
    return Modulation(Entries.of([table]), random.integers(0, PATCHES, (1, *size)).astype(np.int32), shift=shift)


@each_isa
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_conv(isa: Isa, data: st.DataObject) -> None:
    height, width = data.draw(st.sampled_from([(7, 5), (40, 70), (3, 130), (16, 16)]))
    c_in, c_out = data.draw(st.sampled_from([(32, 32), (48, 40), (64, 3), (20, 65)]))
    kernel_size, threads = data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([1, 3]))
    random = np.random.default_rng(0)

    def make() -> tuple[Step, Array]:
        x = stored_input_map(random_values(random, (1, c_in, height, width), isa), isa)
        weight = random.standard_normal((c_out, c_in, kernel_size, kernel_size)).astype(np.float32)
        residual = plain(random_values(random, (1, c_out, height, width), isa), isa)
        y = empty_plain(1, c_out, height, width, isa_dtype(isa))
        return conv(isa, x, pack_conv(isa, weight), y, residual), y

    assert_part(make, data.draw(rectangles(height, width)), threads, 3)


def stored_input_map(values: Array, isa: Isa) -> Array:
    return to_padded(values, input_dtype(isa))


@each_isa
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_modulated_conv(isa: Isa, data: st.DataObject) -> None:
    height, width = data.draw(st.sampled_from([(8, 6), (40, 70), (64, 140), (16, 16)]))
    c_in, c_out = data.draw(st.sampled_from([(32, 32), (48, 40), (64, 3), (256, 32)]))
    shift, shortcut = data.draw(st.sampled_from([0, 1])), data.draw(st.booleans()) and c_out > 3
    kernel_size, threads = data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([1, 3]))
    random = np.random.default_rng(1)

    def make() -> tuple[Step, Array]:
        x = plain(random_values(random, (1, c_in, height >> shift, width >> shift), isa), isa)
        weight = random.standard_normal((c_out, c_in, kernel_size, kernel_size)).astype(np.float32)
        beside = random.standard_normal((c_out, c_in, 1, 1)).astype(np.float32)
        residual = plain(random_values(random, (1, c_out, height >> shift, width >> shift), isa), isa)
        y = empty_plain(1, c_out, height, width, isa_dtype(isa))
        of, of_shortcut = (modulation(random, isa, c_in, (height, width), shift) for _ in range(2))
        step = modulated_conv(
            isa, x, of, pack_conv(isa, weight), y, None if shortcut else residual,
            residual_shift=0 if shortcut else shift,
            shortcut=Shortcut(x, of_shortcut, pack_conv(isa, beside)) if shortcut else None,
        )  # fmt: skip
        return step, y

    assert_part(make, data.draw(rectangles(height, width)), threads, 3)


@each_isa
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_modulate_writes_the_pixels_and_the_border_beside_them(isa: Isa, data: st.DataObject) -> None:
    height, width, shift = data.draw(st.sampled_from([(8, 6, 1), (5, 7, 0), (16, 40, 1)]))
    random, rectangle = np.random.default_rng(2), data.draw(rectangles(height, width))
    x = plain(random_values(random, (1, 40, height >> shift, width >> shift), isa), isa)
    out = empty_padded(1, 40, height, width, input_dtype(isa))
    step = modulate(isa, x, modulation(random, isa, 40, (height, width), shift), out)
    whole, part = run(step, out, None, 1), run(step, out, rectangle, data.draw(st.sampled_from([1, 3])))
    if not rectangle.area:
        assert (part == 0xFF).all()
        return
    top, left, bottom, right = rectangle
    left, right = (left // 2 * 2, (right + 1) // 2 * 2) if shift else (left, right)
    rows = slice(0 if top == 0 else top + 1, height + 2 if bottom == height else bottom + 1)
    columns = slice(0 if left == 0 else left + 1, width + 2 if right == width else right + 1)
    assert np.array_equal(part[:, rows, :, columns], whole[:, rows, :, columns])
    kept = np.ones(part.shape, bool)
    kept[:, rows, :, columns] = False
    kept[:, rows, :, [0, -1]] = False  # the border of each line is written in any case
    kept[:, [0, -1]] = False
    assert (part[kept] == 0xFF).all()


@each_isa
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_image(isa: Isa, data: st.DataObject) -> None:
    height, width = data.draw(st.sampled_from([(5, 7), (3, 300)]))
    random = np.random.default_rng(3)
    pixels = np.empty((1, height, width, 3), np.uint8)
    x = plain(random_values(random, (1, 3, height, width), isa), isa)

    def make() -> tuple[Step, Array]:
        return image(isa, x, None, pixels), pixels

    whole = run(image(isa, x, None, pixels), pixels, None, 1)
    rectangle = data.draw(rectangles(height, width))
    part = run(image(isa, x, None, pixels), pixels, rectangle, 1)
    expected = np.full_like(whole, 0xFF)
    expected[0][rectangle.slices] = whole[0][rectangle.slices]
    assert np.array_equal(part, expected)


@each_isa
def test_errors_name_the_step_and_the_rectangle(isa: Isa) -> None:
    x = plain(np.zeros((2, 3, 4, 6)), isa)
    pixels = np.empty((2, 4, 6, 3), np.uint8)
    mean, rstd = np.empty((2, 2, 32), np.float32)
    program = Program([image(isa, x, None, pixels), image(isa, x[:1], None, pixels[:1]), norm(isa, x, mean, rstd)])
    with pytest.raises(StepError, match=r"\[image\] expected one image and a rectangle within 4x6 but got 2 images"):
        program.limit(0, Rectangle(0, 0, 2, 2))
    with pytest.raises(StepError, match=r"within 4x6 but got 1 images and Rectangle\(top=0, left=0, bottom=5, right=2"):
        program.limit(1, Rectangle(0, 0, 5, 2))
    with pytest.raises(StepError, match="expected a step out of modulate, image, conv, modulated_conv but got norm"):
        program.limit(2, EMPTY)
