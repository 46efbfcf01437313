"""A modulated conv gives the bits of modulate and then conv, in every isa, however it is cut into bands."""

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
    Int32,
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
from kernels.ops.modulate import modulate
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
    """What both ways read."""

    x: Array
    entries: Entries | None
    index: Int32 | None
    mean: Float32 | None
    rstd: Float32 | None
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
        Entries.of(tables) if case.entries else None,
        random.integers(0, 7, (case.n, h, w)).astype(np.int32) if case.entries else None,
        mean if case.norm else None,
        rstd if case.norm else None,
        random.standard_normal((c_out, c_in, case.k, case.k)).astype(np.float32),
        pad_channels(random.standard_normal(c_out)),
        None if case.residual is None else plain(random_values(random, (case.n, c_out, h >> s, w >> s), isa), isa),
    )


def run_both(case: Case, isa: Isa, threads: int = 1) -> tuple[Array, Array]:
    """y in one step, and in two."""
    data, (h, w), (c_in, c_out) = draw(case, isa), case.size, case.channels
    packed = pack_conv(isa, data.weight)
    one, two = (poison(empty_plain(case.n, c_out, h, w, isa_dtype(isa))) for _ in range(2))
    of_conv = {"in_channels": c_in, "out_channels": c_out, "kernel_size": case.k, "residual_shift": case.residual or 0}
    run_steps(
        modulated_conv(
            isa, data.x, data.entries, data.index, packed, data.bias, data.residual, one, mean=data.mean,
            rstd=data.rstd, shift=case.shift, **of_conv,
        ),
        threads=threads,
    )  # fmt: skip
    hidden = empty_padded(case.n, c_in, h, w, input_dtype(isa))
    run_steps(
        modulate(isa, data.x, data.entries, data.index, hidden, mean=data.mean, rstd=data.rstd, shift=case.shift),
        conv(isa, hidden, packed, data.bias, data.residual, two, **of_conv),
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
    assert data.entries is not None
    assert data.index is not None
    assert data.residual is not None
    packed = pack_conv(isa, data.weight)
    outputs = []
    for images in (slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3)):
        y = poison(empty_plain(images.stop - images.start, 48, h, w, isa_dtype(isa)))
        entries = Entries.of(data.entries.tables[images])
        step = modulated_conv(
            isa, data.x[images], entries, data.index[images], packed, data.bias, data.residual[images], y,
            in_channels=32, out_channels=48, kernel_size=3, shift=1,
        )  # fmt: skip
        run_steps(step)
        outputs.append(y)
    assert np.array_equal(outputs[0], np.concatenate(outputs[1:]))


@each_isa
def test_errors_name_the_step(isa: Isa) -> None:
    data, y = draw(Case(), isa), empty_plain(1, 32, 4, 8, isa_dtype(isa))
    packed = pack_conv(isa, data.weight)
    sizes = {"in_channels": 32, "out_channels": 32, "kernel_size": 3}
    with pytest.raises(StepError, match=r"\[modulated_conv\] expected entries with index"):
        modulated_conv(isa, data.x, data.entries, None, packed, data.bias, None, y, **sizes)
    with pytest.raises(StepError, match=r"\[modulated_conv\] expected bias as C-contiguous float32 \[32\]"):
        modulated_conv(isa, data.x, data.entries, data.index, packed, data.bias[:-1], None, y, **sizes)
    with pytest.raises(StepError, match=r"\[modulated_conv\] expected residual_shift 0, or 1"):
        modulated_conv(isa, data.x, data.entries, data.index, packed, data.bias, None, y, **sizes, residual_shift=2)


SHORTCUTS = [
    Case(2, (48, 64), (6, 10), shift=1),
    Case(1, (64, 33), (38, 18), shift=1, norm=True),
    Case(3, (32, 40), (34, 20)),
    Case(1, (320, 32), (9, 35)),
]


@each_isa
@pytest.mark.parametrize("case", SHORTCUTS, ids=str)
def test_with_a_shortcut(isa: Isa, case: Case) -> None:
    """Against the sum of two convs in float64, of the same inputs; where the shortcut is rounded, to the bit."""
    (h, w), (c_in, c_out), dtype = case.size, case.channels, isa_dtype(isa)
    narrow = replace(case, channels=(32, c_out), shift=0)
    data, beside = draw(narrow, isa), draw(case, isa)
    weight, weight_s = data.weight, beside.weight[:, :, :1, :1].copy()
    packed, packed_s = pack_conv(isa, weight), pack_conv(isa, weight_s)
    of_conv = {"out_channels": c_out, "kernel_size": 3}
    y = poison(empty_plain(case.n, c_out, h, w, dtype))
    shortcut = Shortcut(
        beside.x, beside.entries, beside.index, packed_s, c_in, beside.mean, beside.rstd, case.shift
    )  # fmt: skip
    run_steps(
        modulated_conv(
            isa, data.x, data.entries, data.index, packed, data.bias, None, y, mean=data.mean, rstd=data.rstd,
            in_channels=32, **of_conv, shortcut=shortcut,
        ),
        threads=2,
    )  # fmt: skip

    hidden, hidden_s = (empty_padded(case.n, c, h, w, input_dtype(isa)) for c in (32, c_in))
    residual, two = (empty_plain(case.n, c_out, h, w, dtype) for _ in range(2))
    no_bias = np.zeros_like(data.bias)
    run_steps(
        modulate(isa, data.x, data.entries, data.index, hidden, mean=data.mean, rstd=data.rstd),
        modulate(
            isa, beside.x, beside.entries, beside.index, hidden_s, mean=beside.mean, rstd=beside.rstd,
            shift=case.shift, leaky=False,
        ),
        conv(isa, hidden_s, packed_s, no_bias, None, residual, in_channels=c_in, out_channels=c_out, kernel_size=1),
        conv(isa, hidden, packed, data.bias, residual, two, in_channels=32, **of_conv),
    )  # fmt: skip
    exact, exact_s = from_padded(hidden, 32), from_padded(hidden_s, c_in)
    weight, weight_s = (from_storage(to_storage(v, input_dtype(isa))) for v in (weight, weight_s))
    bias = data.bias[:c_out].astype(np.float64)
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
    shortcut = Shortcut(data.x, data.entries, data.index, packed_s, 32)
    with pytest.raises(StepError, match="expected a residual or a shortcut but got both"):
        modulated_conv(
            isa, data.x, data.entries, data.index, packed, data.bias, data.residual, y, in_channels=32,
            out_channels=32, kernel_size=3, shortcut=shortcut,
        )  # fmt: skip
