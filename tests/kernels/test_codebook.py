"""Codebook: every tier and both forms against the float64 twin."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from native import TIERS, CodebookCase, each_tier, entry_values, poison, random_values, run_steps, stored_input
from tolerances import assert_within, sum_bound

from kernels.codebook import choose_form, codebook_numpy, pack_bias
from kernels.layouts import aligned_empty, from_entries, storage_dtype, to_entries
from kernels.steps import Form, StepError, Tier, codebook, pack_codebook, tier_dtype, tier_forms

FORMS = [(tier, form) for tier in TIERS for form in tier_forms(tier)]
each_tier_and_form = pytest.mark.parametrize(
    ("tier", "form"), FORMS or [pytest.param("none", "none", marks=pytest.mark.skip("no AVX2 here"))]
)


def make(
    tier: Tier, form: Form, rows: int, actv_rows: int, channels: int, taps: int = 9, *, in_order: bool = False
) -> CodebookCase:
    """With in_order, patches read higher rows the later they come, as a plan's do, and the last row all along."""
    random = np.random.default_rng(rows * channels + taps)
    actv = np.maximum(random_values(random, (actv_rows, 128), tier), 0)
    actv[-1] = 0
    weight = random_values(random, (taps * 128, 2 * channels), tier)
    bias = random.standard_normal(2 * channels).astype(np.float32)
    patches = random.integers(0, actv_rows, (rows, taps)).astype(np.int32)
    if in_order:
        patches.sort(axis=0)
        patches[::7, 0] = actv_rows - 1
    expected = codebook_numpy(actv, patches, weight, bias)
    sizes = codebook_numpy(actv, patches, np.abs(weight), np.abs(bias))
    entries = poison(aligned_empty((-(-channels // 32), rows, 2, 32), storage_dtype(tier_dtype(tier))))
    packed = pack_codebook(tier, weight.astype(np.float32), channels)
    step = codebook(tier, stored_input(actv, tier), patches, packed, pack_bias(bias), entries, form=form)
    return CodebookCase(step, entries, expected, sum_bound(sizes, taps * 128, expected, tier_dtype(tier)))


@each_tier_and_form
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
def test_against_twin(tier: Tier, form: Form, rows: int, actv_rows: int, channels: int, taps: int) -> None:
    case = make(tier, form, rows, actv_rows, channels, taps)
    run_steps(case.step)
    assert_within(entry_values(case.entries, channels), case.expected, case.bound)
    unused = to_entries(*from_entries(case.entries, channels), tier_dtype(tier))  # zeros behind the channels
    assert np.array_equal(case.entries, unused)


@each_tier
@pytest.mark.parametrize("rows", range(1, 14))
def test_every_tail_of_the_tile(tier: Tier, rows: int) -> None:
    gathered, *others = (make(tier, form, rows, rows, 32) for form in tier_forms(tier))
    run_steps(gathered.step, *(other.step for other in others))
    assert_within(entry_values(gathered.entries, 32), gathered.expected, gathered.bound)
    for other in others:
        assert np.array_equal(gathered.entries, other.entries)


@each_tier
def test_neither_form_nor_threads_change_a_bit(tier: Tier) -> None:
    reference = make(tier, "gathered", 300, 50, 96)
    run_steps(reference.step)
    for form, threads in product(tier_forms(tier), (1, 2, 3)):
        other = make(tier, form, 300, 50, 96)
        run_steps(other.step, threads=threads)
        assert np.array_equal(reference.entries, other.entries), (form, threads)


@each_tier_and_form
def test_patches_in_scan_order(tier: Tier, form: Form) -> None:
    case = make(tier, form, 400, 333, 32, in_order=True)
    run_steps(case.step)
    assert_within(entry_values(case.entries, 32), case.expected, case.bound)


@each_tier_and_form
def test_rows_do_not_depend_on_other_rows(tier: Tier, form: Form) -> None:
    whole = make(tier, form, 120, 30, 64)
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


@pytest.mark.skipif("amx" not in TIERS, reason="no AMX here")
def test_a_form_that_the_tier_lacks_is_refused() -> None:
    with pytest.raises(StepError, match=r"expected form gathered on tier amx but got 'per_tap'"):
        make("amx", "per_tap", 3, 3, 32)


@each_tier
def test_weights_of_another_width_are_refused(tier: Tier) -> None:
    case = make(tier, "gathered", 3, 3, 32)
    actv, patches, weight, bias, entries = case.step.arrays
    with pytest.raises(StepError, match=r"\[codebook\] expected weight as C-contiguous uint8"):
        codebook(tier, actv, patches, weight[:-1], bias, entries, form="gathered")
