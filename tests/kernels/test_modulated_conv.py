"""Modulated conv: the same bits as a modulate step and a conv step, on every ISA and for any split into bands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from native import each_isa, plain, poison, random_values, run_steps
from tolerances import UNIT, assert_within, sum_bound

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import (
    Array,
    Float32,
    empty_padded,
    empty_plain,
    from_padded,
    from_plain,
    from_storage,
    pad_channels,
    to_entries,
    to_storage,
)
from kernels.ops.conv import conv, conv_numpy, pack_conv
from kernels.ops.modulate import Modulation, modulate
from kernels.ops.modulated_conv import Shortcut, modulated_conv
from kernels.program import Entries, StepError


@dataclass(frozen=True)
class Case:
    """Sizes of one modulated conv. residual: None, or its shift."""

    n: int = 1
    channels: tuple[int, int] = (32, 32)
    size: tuple[int, int] = (4, 8)
    k: int = 3
    shift: int = 0
    residual: int | None = None
    norm: bool = False
    entries: bool = True


CASES = [
    Case(),
    Case(2, (48, 64), (6, 10), shift=1, residual=0),
    Case(3, (16, 3), (34, 20)),
    Case(1, (64, 33), (70, 18), k=1, shift=1, residual=1),
    Case(2, (32, 16), (40, 36), shift=1, residual=1, norm=True),
    Case(1, (64, 32), (7, 17), residual=0),
    Case(1, (32, 3), (18, 6), entries=False),
    Case(1, (256, 40), (24, 66), shift=1),
]


@dataclass(frozen=True)
class Data:
    """The data of one modulated conv."""

    x: Array
    modulation: Modulation
    weight: Float32
    bias: Float32
    residual: Array | None


def draw(case: Case, isa: Isa) -> Data:
    random = np.random.default_rng(case.size[0] * case.size[1])
    (h, w), (c_in, c_out), s = case.size, case.channels, case.residual or 0
    tables = [to_entries(*random_values(random, (2, 7, c_in), isa), isa_dtype(isa)) for _ in range(case.n)]
    mean, rstd = pad_channels(np.abs(random.standard_normal((2, case.n, c_in))))
    return Data(
        plain(random_values(random, (case.n, c_in, h >> case.shift, w >> case.shift), isa), isa),
        Modulation(
            Entries.of(tables) if case.entries else None,
            random.integers(0, 7, (case.n, h, w)).astype(np.int32) if case.entries else None,
            mean if case.norm else None,
            rstd if case.norm else None,
            case.shift,
        ),
        random.standard_normal((c_out, c_in, case.k, case.k)).astype(np.float32),
        random.standard_normal(c_out).astype(np.float32),
        None if case.residual is None else plain(random_values(random, (case.n, c_out, h >> s, w >> s), isa), isa),
    )


def run_both(case: Case, isa: Isa, threads: int = 1) -> tuple[Array, Array]:
    """Return y of one step and y of two steps."""
    data, (h, w), (c_in, c_out) = draw(case, isa), case.size, case.channels
    packed = pack_conv(isa, data.weight, data.bias)
    one, two = (poison(empty_plain(case.n, c_out, h, w, isa_dtype(isa))) for _ in range(2))
    shift = case.residual or 0
    run_steps(
        modulated_conv(isa, data.x, data.modulation, packed, one, data.residual, residual_shift=shift), threads=threads
    )
    hidden = empty_padded(case.n, c_in, h, w, input_dtype(isa))
    run_steps(
        modulate(isa, data.x, data.modulation, hidden),
        conv(isa, hidden, packed, two, data.residual, residual_shift=shift),
    )
    return one, two


@each_isa
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_same_bits_as_two_steps(isa: Isa, case: Case, threads: int) -> None:
    one, two = run_both(case, isa, threads)
    assert np.array_equal(one, two)


@each_isa
def test_an_image_does_not_depend_on_its_batch(isa: Isa) -> None:
    case = Case(3, (32, 48), (38, 20), shift=1, residual=0)
    data, (h, w) = draw(case, isa), case.size
    all_entries, index = data.modulation.entries, data.modulation.index
    assert all_entries is not None
    assert index is not None
    assert data.residual is not None
    packed = pack_conv(isa, data.weight, data.bias)
    outputs = []
    for images in (slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3)):
        y = poison(empty_plain(images.stop - images.start, 48, h, w, isa_dtype(isa)))
        modulation = Modulation(Entries.of(all_entries.tables[images]), index[images], shift=1)
        run_steps(modulated_conv(isa, data.x[images], modulation, packed, y, data.residual[images]))
        outputs.append(y)
    assert np.array_equal(outputs[0], np.concatenate(outputs[1:]))


@each_isa
def test_errors_name_the_step(isa: Isa) -> None:
    data, y = draw(Case(), isa), empty_plain(1, 32, 4, 8, isa_dtype(isa))
    packed, modulation = pack_conv(isa, data.weight, data.bias), data.modulation
    with pytest.raises(StepError, match=r"\[modulated_conv\] expected entries with index"):
        modulated_conv(isa, data.x, Modulation(modulation.entries), packed, y)
    with pytest.raises(StepError, match=r"\[modulated_conv\] expected bias as C-contiguous float32 \[32\]"):
        modulated_conv(isa, data.x, modulation, replace(packed, bias=packed.bias[:-1]), y)
    with pytest.raises(StepError, match=r"\[modulated_conv\] expected residual_shift 0, or 1"):
        modulated_conv(isa, data.x, modulation, packed, y, residual_shift=2)


SHORTCUTS = [
    Case(2, (48, 64), (6, 10), shift=1),
    Case(1, (64, 33), (38, 18), shift=1, norm=True),
    Case(3, (32, 40), (34, 20)),
    Case(1, (320, 32), (9, 35)),
]


@each_isa
@pytest.mark.parametrize("case", SHORTCUTS, ids=str)
def test_with_a_shortcut(isa: Isa, case: Case) -> None:
    """Within bounds of the sum of two convs in float64; the same bits as four steps on ISAs that round the shortcut."""
    (h, w), (c_in, c_out), dtype = case.size, case.channels, isa_dtype(isa)
    narrow = replace(case, channels=(32, c_out), shift=0)
    data, beside = draw(narrow, isa), draw(case, isa)
    weight, weight_s = data.weight, beside.weight[:, :, :1, :1].copy()
    packed, packed_s = pack_conv(isa, weight, data.bias), pack_conv(isa, weight_s)
    y = poison(empty_plain(case.n, c_out, h, w, dtype))
    shortcut = Shortcut(beside.x, replace(beside.modulation, leaky=False), packed_s)
    run_steps(modulated_conv(isa, data.x, data.modulation, packed, y, shortcut=shortcut), threads=2)

    hidden, hidden_s = (empty_padded(case.n, c, h, w, input_dtype(isa)) for c in (32, c_in))
    residual, two = (empty_plain(case.n, c_out, h, w, dtype) for _ in range(2))
    run_steps(
        modulate(isa, data.x, data.modulation, hidden),
        modulate(isa, beside.x, shortcut.modulation, hidden_s),
        conv(isa, hidden_s, packed_s, residual),
        conv(isa, hidden, packed, two, residual),
    )
    exact, exact_s = from_padded(hidden, 32), from_padded(hidden_s, c_in)
    weight, weight_s = (from_storage(to_storage(v, input_dtype(isa))) for v in (weight, weight_s))
    bias = data.bias.astype(np.float64)
    added = conv_numpy(exact_s, weight_s, np.zeros(c_out))
    expected = conv_numpy(exact, weight, bias) + added
    sizes = conv_numpy(abs(exact), abs(weight), abs(bias)) + conv_numpy(abs(exact_s), abs(weight_s), np.zeros(c_out))
    bound = sum_bound(sizes, 9 * 32 + c_in, expected, dtype) + UNIT[dtype] * 1.01 * abs(added)
    assert_within(from_plain(y, c_out), expected, bound)
    if isa != "amx":
        assert np.array_equal(y, two)


@each_isa
def test_a_shortcut_and_a_residual_are_one_too_many(isa: Isa) -> None:
    data, y = draw(Case(residual=0), isa), empty_plain(1, 32, 4, 8, isa_dtype(isa))
    packed, packed_s = pack_conv(isa, data.weight), pack_conv(isa, data.weight[:, :, :1, :1].copy())
    shortcut = Shortcut(data.x, data.modulation, packed_s)
    with pytest.raises(StepError, match="expected a residual or a shortcut but got both"):
        modulated_conv(isa, data.x, data.modulation, packed, y, data.residual, shortcut=shortcut)


@each_isa
def test_a_shortcut_is_1x1_and_has_no_bias(isa: Isa) -> None:
    data, y = draw(Case(), isa), empty_plain(1, 32, 4, 8, isa_dtype(isa))
    packed, narrow = pack_conv(isa, data.weight, data.bias), data.weight[:, :, :1, :1].copy()
    for wrong in (packed, pack_conv(isa, narrow, data.bias), pack_conv(isa, narrow[:3].copy())):
        with pytest.raises(StepError, match=r"\[modulated_conv shortcut\] expected a 1x1 conv without bias to 32"):
            modulated_conv(isa, data.x, data.modulation, packed, y, shortcut=Shortcut(data.x, data.modulation, wrong))
