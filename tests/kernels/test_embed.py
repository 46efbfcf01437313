"""Embed: every ISA against the float64 specification."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from native import each_isa, poison, random_values, run_steps, stored
from tolerances import assert_within, sum_bound

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import Float32, Float64, aligned_empty, from_plain, from_storage, storage_dtype
from kernels.ops.embed import embed, embed_numpy
from kernels.program import StepError


def make(
    rows: int, depth: int, taps: int = 9, symbols: int = 5
) -> tuple[Float32, Float32, npt.NDArray[np.int32], Float64]:
    """Draw table, bias and patches; also return the sum of the absolute terms of every output [rows, depth]."""
    random = np.random.default_rng(rows * depth + taps)
    table = random.standard_normal((taps, symbols + 1, depth)).astype(np.float32)
    table[:, symbols] = 0
    bias = random.standard_normal(depth).astype(np.float32)
    patches = random.integers(0, symbols + 1, (rows, taps)).astype(np.int32)
    sizes = np.abs(bias) + np.abs(table)[np.arange(taps), patches].sum(axis=1, dtype=np.float64)
    return table, bias, patches, sizes


@each_isa
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 200])
@pytest.mark.parametrize(("depth", "taps"), [(32, 1), (128, 9), (96, 25)])
def test_rows(isa: Isa, rows: int, depth: int, taps: int) -> None:
    table, bias, patches, sizes = make(rows, depth, taps)
    out = poison(aligned_empty((rows + 1, depth), storage_dtype(input_dtype(isa))))
    run_steps(embed(isa, table, bias, patches, out, relu=True, zero_row=True))
    expected = embed_numpy(table, bias, patches, relu=True, zero_row=True)
    bound = sum_bound(np.pad(sizes, ((0, 1), (0, 0))), taps, expected, input_dtype(isa))
    assert_within(from_storage(out), expected, bound)
    assert not out[-1].any()


@each_isa
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 4, 33)])
def test_plain_map(isa: Isa, shape: tuple[int, int, int]) -> None:
    n, height, width = shape
    table, bias, patches, sizes = make(n * height * width, 64)
    out = poison(aligned_empty((n, height, 2, width, 32), storage_dtype(isa_dtype(isa))))
    run_steps(embed(isa, table, bias, patches, out, relu=False, zero_row=False))
    expected = embed_numpy(table, bias, patches, relu=False, zero_row=False)
    got = from_plain(out, 64).transpose(0, 2, 3, 1).reshape(-1, 64)
    assert_within(got, expected, sum_bound(sizes, 9, expected, isa_dtype(isa)))
    assert (expected < 0).any()


@each_isa
def test_threads_change_no_bit(isa: Isa) -> None:
    table, bias, patches, _ = make(500, 128)
    outs = [aligned_empty((501, 128), storage_dtype(input_dtype(isa))) for _ in range(3)]
    for threads, out in enumerate(outs, 1):
        run_steps(embed(isa, table, bias, patches, poison(out), relu=True, zero_row=True), threads=threads)
    assert np.array_equal(outs[0], outs[1])
    assert np.array_equal(outs[0], outs[2])


@each_isa
def test_depth_must_be_whole_blocks(isa: Isa) -> None:
    table, bias, patches, _ = make(2, 48)
    with pytest.raises(StepError, match=r"\[embed\] expected a depth that is a multiple of 32 but got 48"):
        embed(isa, table, bias, patches, stored(random_values(np.random.default_rng(0), (2, 48), isa), isa),
              relu=False, zero_row=False)  # fmt: skip
