"""Codebook: every ISA and both forms against the float64 specification."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from native import ISAS, CodebookCase, each_isa, entry_values, poison, random_values, run_steps, stored_input
from tolerances import assert_within, sum_bound

from kernels.isa import Form, Isa, isa_dtype, isa_forms
from kernels.layouts import aligned_empty, from_entries, storage_dtype, to_entries
from kernels.ops.codebook import choose_form, codebook, codebook_numpy, pack_bias, pack_codebook
from kernels.program import StepError

FORMS = [(isa, form) for isa in ISAS for form in isa_forms(isa)]
each_isa_and_form = pytest.mark.parametrize(
    ("isa", "form"), FORMS or [pytest.param("none", "none", marks=pytest.mark.skip("no AVX2 here"))]
)


def make(
    isa: Isa, form: Form, rows: int, actv_rows: int, channels: int, taps: int = 9, *, in_order: bool = False
) -> CodebookCase:
    """Draw a case. in_order: later patches read higher rows, like a plan's, and some patches read the last row."""
    random = np.random.default_rng(rows * channels + taps)
    actv = np.maximum(random_values(random, (actv_rows, 128), isa), 0)
    actv[-1] = 0
    weight = random_values(random, (taps * 128, 2 * channels), isa)
    bias = random.standard_normal(2 * channels).astype(np.float32)
    patches = random.integers(0, actv_rows, (rows, taps)).astype(np.int32)
    if in_order:
        patches.sort(axis=0)
        patches[::7, 0] = actv_rows - 1
    expected = codebook_numpy(actv, patches, weight, bias)
    sizes = codebook_numpy(actv, patches, np.abs(weight), np.abs(bias))
    entries = poison(aligned_empty((-(-channels // 32), rows, 2, 32), storage_dtype(isa_dtype(isa))))
    packed = pack_codebook(isa, weight.astype(np.float32), channels)
    step = codebook(isa, stored_input(actv, isa), patches, packed, pack_bias(bias), entries, form=form)
    return CodebookCase(step, entries, expected, sum_bound(sizes, taps * 128, expected, isa_dtype(isa)))


@each_isa_and_form
@pytest.mark.parametrize(
    ("rows", "actv_rows", "channels", "taps"),
    [
        (1, 1, 32, 1),
        (1, 2, 16, 9),
        (7, 3, 48, 9),
        (97, 14, 64, 9),
        (200, 40, 96, 9),
        (300, 20, 256, 9),
        (13, 6, 32, 25),
    ],
)
def test_against_twin(isa: Isa, form: Form, rows: int, actv_rows: int, channels: int, taps: int) -> None:
    case = make(isa, form, rows, actv_rows, channels, taps)
    run_steps(case.step)
    assert_within(entry_values(case.entries, channels), case.expected, case.bound)
    unused = to_entries(*from_entries(case.entries, channels), isa_dtype(isa))  # zeros in unused channels
    assert np.array_equal(case.entries, unused)


@each_isa
@pytest.mark.parametrize("rows", range(1, 14))
def test_every_tail_of_the_tile(isa: Isa, rows: int) -> None:
    gathered, *others = (make(isa, form, rows, rows, 32) for form in isa_forms(isa))
    run_steps(gathered.step, *(other.step for other in others))
    assert_within(entry_values(gathered.entries, 32), gathered.expected, gathered.bound)
    for other in others:
        assert np.array_equal(gathered.entries, other.entries)


@each_isa
def test_neither_form_nor_threads_change_a_bit(isa: Isa) -> None:
    reference = make(isa, "gathered", 300, 50, 96)
    run_steps(reference.step)
    for form, threads in product(isa_forms(isa), (1, 2, 3)):
        other = make(isa, form, 300, 50, 96)
        run_steps(other.step, threads=threads)
        assert np.array_equal(reference.entries, other.entries), (form, threads)


@each_isa_and_form
def test_patches_in_scan_order(isa: Isa, form: Form) -> None:
    case = make(isa, form, 400, 333, 32, in_order=True)
    run_steps(case.step)
    assert_within(entry_values(case.entries, 32), case.expected, case.bound)


@each_isa_and_form
def test_rows_do_not_depend_on_other_rows(isa: Isa, form: Form) -> None:
    whole = make(isa, form, 120, 30, 64)
    run_steps(whole.step)
    first = whole.entries.copy()
    poison(whole.entries)
    whole.step.record["rows"] = 101
    run_steps(whole.step)
    assert np.array_equal(whole.entries[:, :101], first[:, :101])
    assert (np.ascontiguousarray(whole.entries[:, 101:]).view(np.uint8) == 0xFF).all()


@pytest.mark.parametrize(
    ("rows", "actv_rows", "form"), [(10, 11, "gathered"), (100, 101, "gathered"), (4000, 1000, "per_tap")]
)
def test_form_by_count(rows: int, actv_rows: int, form: Form) -> None:
    assert choose_form("avx512", rows, actv_rows) == form


def test_form_for_many_threads() -> None:
    assert choose_form("avx512", 4000, 1000, n_blocks=4, threads=4) == "per_tap"
    assert choose_form("avx512", 4000, 1000, n_blocks=4, threads=32) == "gathered"


@pytest.mark.skipif("amx" not in ISAS, reason="no AMX here")
def test_a_form_that_the_isa_lacks_is_refused() -> None:
    with pytest.raises(StepError, match=r"expected form gathered on isa amx but got 'per_tap'"):
        make("amx", "per_tap", 3, 3, 32)


@each_isa
def test_weights_of_another_width_are_refused(isa: Isa) -> None:
    case = make(isa, "gathered", 3, 3, 32)
    actv, patches, weight, bias, entries = case.step.arrays
    with pytest.raises(StepError, match=r"\[codebook\] expected weight as C-contiguous uint8"):
        codebook(isa, actv, patches, weight[:-1], bias, entries, form="gathered")
