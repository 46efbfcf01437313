"""Modulate: every ISA against the float64 specification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from native import each_isa, plain, poison, random_values, run_steps
from tolerances import assert_within, gamma, stored_bound

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import (
    Array,
    Float64,
    empty_padded,
    from_padded,
    pad_channels,
    to_entries,
    to_padded,
)
from kernels.ops.modulate import Modulation, modulate, modulate_numpy
from kernels.program import Entries, Step, StepError

SIZES = [(1, 1, 1), (1, 2, 3), (2, 3, 7), (1, 1, 8), (3, 2, 12), (1, 5, 33)]


@dataclass(frozen=True)
class Case:
    """One modulation step, its output, and the expected values with their error bound."""

    step: Step
    out: Array
    entries: Entries | None
    expected: Float64  # [N, C, H, W]
    bound: Float64


def make(
    isa: Isa, size: tuple[int, int, int], channels: int, *, entries: bool, norm: bool, shift: int, leaky: bool
) -> Case:
    n, height, width = size
    random = np.random.default_rng(channels * width + height)
    x = random_values(random, (n, channels, height >> shift, width >> shift), isa)
    a, b = random_values(random, (2, 6 * n, channels), isa) if entries else (None, None)
    index = random.integers(0, 6, size).astype(np.int32) if entries else None  # rows of the image's own table of six
    if index is not None and shift:  # some pixels of x have one entry for all four readers, others have several
        whole = index[:, ::2, ::2].repeat(2, 1).repeat(2, 2)
        index = np.where(random.random((n, height // 2, width // 2)).repeat(2, 1).repeat(2, 2) < 0.5, whole, index)
    rows = None if index is None else index + 6 * np.arange(n, dtype=np.int32)[:, None, None]
    mean, rstd = np.abs(random.standard_normal((2, n, channels))).astype(np.float32) if norm else (None, None)
    arguments = {"mean": mean, "rstd": rstd, "shift": shift}
    expected = modulate_numpy(x, a, b, rows, **arguments, leaky=leaky)
    sizes = modulate_numpy(
        np.abs(x), None if a is None else np.abs(a), None if b is None else np.abs(b), rows, shift=shift,
        mean=None if mean is None else -mean, rstd=rstd, leaky=False,
    )  # fmt: skip
    out = poison(empty_padded(n, channels, height, width, input_dtype(isa)))
    tables = None
    if a is not None and b is not None:
        table = to_entries(a, b, isa_dtype(isa))  # images share one table, like the maps of a batch
        tables = Entries.of([table[:, 6 * i : 6 * i + 6] for i in range(n)])
    modulation = Modulation(
        tables, index, None if mean is None else pad_channels(mean), None if rstd is None else pad_channels(rstd),
        shift, leaky,
    )  # fmt: skip
    step = modulate(isa, plain(x, isa), modulation, out)
    # Four roundings (subtract, scale, multiply and add, slope), then the rounding to I. amx computes in float16, so it
    # also rounds mean, rstd and slope first.
    computed = gamma(7, "float16") * sizes + 8 * 2.0**-25 if isa == "amx" else gamma(4) * sizes
    bound = stored_bound(computed, expected, input_dtype(isa))
    return Case(step, out, tables, expected, bound)


@each_isa
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 32, 96])
def test_against_twin(isa: Isa, size: tuple[int, int, int], channels: int) -> None:
    case = make(isa, size, channels, entries=True, norm=False, shift=0, leaky=True)
    run_steps(case.step)
    assert_within(from_padded(case.out, channels), case.expected, case.bound)
    # The border and the unused channels are zero.
    assert np.array_equal(case.out, to_padded(from_padded(case.out, channels), input_dtype(isa)))


@each_isa
@pytest.mark.parametrize("entries", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("leaky", [True, False])
@pytest.mark.parametrize("shift", [0, 1])
def test_every_variant(isa: Isa, entries: bool, norm: bool, leaky: bool, shift: int) -> None:
    case = make(isa, (2, 4, 6), 48, entries=entries, norm=norm, shift=shift, leaky=leaky)
    run_steps(case.step)
    assert_within(from_padded(case.out, 48), case.expected, case.bound)


@each_isa
def test_neither_threads_nor_batch_change_a_bit(isa: Isa) -> None:
    case = make(isa, (3, 9, 5), 64, entries=True, norm=False, shift=0, leaky=True)
    run_steps(case.step)
    for threads in (2, 3):
        other = make(isa, (3, 9, 5), 64, entries=True, norm=False, shift=0, leaky=True)
        run_steps(other.step, threads=threads)
        assert np.array_equal(case.out, other.out)
    assert case.entries is not None
    (x, index), out, tables = case.step.arrays[:2], case.out, case.entries.tables
    for n in range(3):
        alone = poison(out[n : n + 1].copy())
        run_steps(modulate(isa, x[n : n + 1], Modulation(Entries.of(tables[n : n + 1]), index[n : n + 1]), alone))
        assert np.array_equal(alone[0], out[n])


@each_isa
def test_errors(isa: Isa) -> None:
    case = make(isa, (1, 4, 4), 32, entries=True, norm=False, shift=0, leaky=True)
    (x, index), out, entries = case.step.arrays[:2], case.out, case.entries
    assert entries is not None
    with pytest.raises(StepError, match=r"\[modulate\] expected entries with index"):
        modulate(isa, x, Modulation(entries), out)
    with pytest.raises(StepError, match=r"\[modulate\] expected shift 0, or 1 with even sizes, but got 2 for 4x4"):
        modulate(isa, x, Modulation(entries, index, shift=2), out)
    with pytest.raises(StepError, match=r"\[modulate\] expected index as C-contiguous int32 \[1, 4, 4\] but got int64"):
        modulate(isa, x, Modulation(entries, index.astype(np.int64)), out)
    table = entries.tables[0]
    with pytest.raises(StepError, match=r"\[modulate\] expected entries of 1 images, 1 blocks of \w+, but got 2 im"):
        modulate(isa, x, Modulation(Entries.of([table, table]), index), out)
    with pytest.raises(StepError, match=r"\[modulate\] expected entries as \w+ \[1, 'U5', 2, 32\], or rows"):
        Entries.of([table[:, ::2]])
