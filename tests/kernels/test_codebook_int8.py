"""The codebook of int8 products and its hidden rows in bytes, against their specifications."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import ISAS, CodebookCase, entry_values, poison, run_steps
from tolerances import assert_within, gamma, stored_bound

from kernels.layouts import aligned_empty, from_entries, to_entries
from kernels.ops.codebook import Int8, codebook, codebook_int8_numpy, pack_bias, pack_codebook, pack_codebook_int8
from kernels.ops.embed import as_bytes, embed, embed_numpy
from kernels.program import StepError

pytestmark = pytest.mark.skipif("amx" not in ISAS, reason="no AMX here")


@dataclass(frozen=True)
class Case(CodebookCase):
    """One codebook of int8 products."""

    inside: int  # patches whose symbols are all the same


def make(rows: int, actv_rows: int, channels: int, taps: int = 9, symbols: int = 4, seed: int = 0) -> Case:
    """Draw a case in which half of the windows and a third of the patches have one value in all taps."""
    random = np.random.default_rng((seed, rows, channels, taps))
    actv = random.integers(0, 256, (actv_rows, 128)).astype(np.uint8)
    actv[-1] = 0
    windows = random.integers(0, symbols + 1, (actv_rows - 1, taps)).astype(np.int32)  # the last is outside the image
    windows[::2] = windows[::2, :1]
    patches = random.integers(0, actv_rows, (rows, taps)).astype(np.int32)
    patches[::3] = patches[::3, :1]
    weight = random.integers(-127, 128, (taps * 128, 2 * channels)).astype(np.int8)
    scale = (2.0 ** random.uniform(-16, -12, 2 * channels)).astype(np.float32)
    bias = random.standard_normal(2 * channels).astype(np.float32)
    interior = random.standard_normal((symbols, 2 * channels)).astype(np.float16).astype(np.float32)
    expected = codebook_int8_numpy(actv, patches, weight, scale, bias, windows, interior)
    entries = poison(aligned_empty((-(-channels // 32), rows, 2, 32), np.float16))
    int8 = Int8(pack_bias(scale), windows, to_entries(*np.split(interior, 2, axis=1), "float16"))
    step = codebook(
        "amx", actv, patches, pack_codebook_int8(weight, channels), pack_bias(bias), entries, form="gathered", int8=int8
    )
    # The int32 sum is exact. Its conversion, the scaling and the bias round.
    bound = stored_bound(gamma(3) * (np.abs(expected - bias) + np.abs(bias)), expected, "float16")
    inside = codebook_int8_numpy(actv, patches, weight * 0, scale, bias * 0, windows, interior * 0 + 1)[:, 0].sum()
    return Case(step, entries, expected, bound, int(inside))


@pytest.mark.parametrize(
    ("rows", "actv_rows", "channels", "taps"),
    [(1, 1, 32, 1), (1, 2, 16, 9), (33, 5, 48, 9), (200, 40, 96, 9), (300, 20, 256, 9), (600, 70, 512, 9),
     (13, 6, 32, 25)],
)  # fmt: skip
def test_against_twin(rows: int, actv_rows: int, channels: int, taps: int) -> None:
    case = make(rows, actv_rows, channels, taps)
    run_steps(case.step)
    assert_within(entry_values(case.entries, channels), case.expected, case.bound)
    unused = to_entries(*from_entries(case.entries, channels), "float16")  # zeros in unused channels
    assert np.array_equal(case.entries, unused)
    assert rows < 33 or 0 < case.inside < rows


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 140), st.integers(1, 30), st.integers(1, 80), st.sampled_from([1, 9]), st.integers(1, 5),
       st.integers(0, 1000))  # fmt: skip
def test_any_size(rows: int, actv_rows: int, channels: int, taps: int, symbols: int, seed: int) -> None:
    case = make(rows, actv_rows, channels, taps, symbols, seed)
    run_steps(case.step, threads=2)
    assert_within(entry_values(case.entries, channels), case.expected, case.bound)


def test_threads_change_no_bit() -> None:
    reference = make(700, 50, 96)
    run_steps(reference.step)
    for threads in (2, 3):
        other = make(700, 50, 96)
        run_steps(other.step, threads=threads)
        assert np.array_equal(reference.entries, other.entries)


def test_rows_do_not_depend_on_other_rows() -> None:
    whole = make(300, 30, 64)
    run_steps(whole.step)
    first = whole.entries.copy()
    poison(whole.entries)
    whole.step.record["rows"] = 101
    run_steps(whole.step)
    assert np.array_equal(whole.entries[:, :101], first[:, :101])
    assert (np.ascontiguousarray(whole.entries[:, 101:]).view(np.uint8) == 0xFF).all()


@pytest.mark.parametrize(("rows", "taps"), [(1, 9), (33, 9), (200, 25)])
def test_hidden_rows_in_bytes(rows: int, taps: int) -> None:
    random = np.random.default_rng(rows)
    # Integers and halves: sums are exact, and half of them must be rounded. Many lie below 0, some above 255.
    table = (random.integers(-200, 201, (taps, 6, 128)) / 2).astype(np.float32)
    table[:, 5] = 0
    bias = (random.integers(-100, 101, 128) / 2).astype(np.float32)
    patches: npt.NDArray[np.int32] = random.integers(0, 6, (rows, taps)).astype(np.int32)
    out = poison(aligned_empty((rows + 1, 128), np.uint8))
    run_steps(embed("amx", table, bias, patches, out, relu=True, zero_row=True), threads=2)
    expected = embed_numpy(table, bias, patches, relu=True, zero_row=True)
    assert np.array_equal(out, as_bytes(expected))
    assert not out[-1].any()
    if rows > 1:
        assert (expected > 255).any()
        assert (expected[expected < 255] % 1 != 0).any()


def test_errors() -> None:
    case = make(10, 5, 32)
    actv, patches, weight, bias, entries, scale, windows, interior = case.step.arrays
    int8 = Int8(scale, windows, interior)
    with pytest.raises(StepError, match=r"expected isa amx for int8 products but got avx512bf16"):
        codebook("avx512bf16", actv, patches, weight, bias, entries, form="gathered", int8=int8)
    with pytest.raises(StepError, match=r"expected windows as C-contiguous int32 \[4, 9\] but got int32 \[3, 9\]"):
        codebook("amx", actv, patches, weight, bias, entries, form="gathered", int8=Int8(scale, windows[:3], interior))
    packed = pack_codebook("amx", np.zeros((9 * 128, 64), np.float32), 32)
    with pytest.raises(StepError, match=r"expected weight as C-contiguous uint8 \[73728\] but got uint8 \[147456\]"):
        codebook("amx", actv, patches, packed, bias, entries, form="gathered", int8=int8)
    with pytest.raises(StepError, match=r"expected actv as C-contiguous uint16 \[5, 128\] but got uint8"):
        codebook("amx", actv, patches, packed, bias, entries, form="gathered")
