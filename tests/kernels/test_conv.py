"""Conv, every ISA: within derived bounds of the specification, and the same bits for any split of the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native import ISAS, each_isa, poison, run_steps
from tolerances import assert_within, sum_bound

from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import (
    Array,
    Float32,
    Float64,
    blocks,
    empty_plain,
    from_padded,
    from_plain,
    from_storage,
    to_padded,
    to_plain,
    to_storage,
)
from kernels.native import native
from kernels.ops.conv import conv, conv_numpy, pack_conv
from kernels.program import Step


@dataclass(frozen=True)
class Case:
    """One conv. residual: None, or its shift."""

    n: int = 1
    in_channels: int = 32
    out_channels: int = 32
    height: int = 4
    width: int = 8
    k: int = 3
    residual: int | None = None


@dataclass(frozen=True)
class Data:
    """The arrays that an ISA's kernel reads."""

    x: Array
    weight: Float32
    bias: Float32
    residual: Array | None


CHANNELS = [(16, 16), (32, 64), (48, 96), (64, 48), (96, 32), (33, 17), (5, 9), (64, 3), (40, 2), (16, 1)]
SIZES = [(1, 1), (2, 3), (3, 7), (4, 8), (6, 12), (2, 33), (5, 70), (1, 600)]
CASES = [
    *(Case(in_channels=i, out_channels=o, k=k, residual=1) for i, o in CHANNELS for k in (1, 3)),
    *(Case(2, 16, o, h, w, k, residual=0) for h, w in SIZES for o in (3, 48) for k in (1, 3)),
    *(Case(3, 32, o, 6, 10, 3, residual=r) for r in (None, 0, 1) for o in (2, 32)),
    Case(8, 512, 64, 8, 8),
    Case(2, 320, 40, 20, 18, residual=1),
    Case(5, 256, 1024, 1, 1, 1),
]


def draw(case: Case, isa: Isa, seed: int = 0) -> Data:
    random, dtype = np.random.default_rng(seed), input_dtype(isa)
    x = random.standard_normal((case.n, case.in_channels, case.height, case.width))
    weight = random.standard_normal((case.out_channels, case.in_channels, case.k, case.k))
    bias = random.standard_normal(case.out_channels)
    residual = None
    if case.residual is not None:
        half = (case.height >> case.residual, case.width >> case.residual)
        residual = to_plain(random.standard_normal((case.n, case.out_channels, *half)), isa_dtype(isa))
    exact = from_storage(to_storage(weight, dtype))  # the values that packing stores
    return Data(to_padded(x, dtype), exact.astype(np.float32), bias.astype(np.float32), residual)


def step_of(case: Case, isa: Isa, data: Data) -> tuple[Step, Array]:
    """Return the step and the map that it writes, poisoned."""
    y = empty_plain(len(data.x), case.out_channels, case.height, case.width, isa_dtype(isa))
    poison(y)
    packed = pack_conv(isa, data.weight, data.bias)
    return conv(isa, data.x, packed, y, data.residual, residual_shift=case.residual or 0), y


def run(case: Case, isa: Isa, data: Data, threads: int = 1) -> Array:
    step, y = step_of(case, isa, data)
    run_steps(step, threads=threads)
    return y


def specified(case: Case, data: Data, sizes: bool = False) -> Float64:
    """Return conv_numpy of the case or, with `sizes`, of the absolute values, which scale the rounding errors."""
    of = np.abs if sizes else np.positive
    x = of(from_padded(data.x, case.in_channels))
    residual = None if data.residual is None else of(from_plain(data.residual, case.out_channels))
    return conv_numpy(x, of(data.weight), of(data.bias), residual, residual_shift=case.residual or 0)


@each_isa
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_specification(case: Case, isa: Isa) -> None:
    data = draw(case, isa)
    expected = specified(case, data)
    length = case.in_channels * case.k**2 + 2
    bound = sum_bound(specified(case, data, sizes=True), length, expected, isa_dtype(isa))
    assert_within(from_plain(run(case, isa, data), case.out_channels), expected, bound)


@pytest.mark.parametrize("case", [Case(2, 20, 7, 5, 6), Case(2, 20, 7, 5, 6, k=1), Case(1, 8, 2, 4, 6, residual=1)])
def test_the_specification_is_pytorchs_conv(case: Case) -> None:
    data = draw(case, "avx2")
    x, weight, bias = (
        torch.from_numpy(np.asarray(array, np.float64))
        for array in (from_padded(data.x, case.in_channels), data.weight, data.bias)
    )
    expected = F.conv2d(x, weight, bias, padding=case.k // 2)
    if data.residual is not None:
        residual = torch.from_numpy(np.ascontiguousarray(from_plain(data.residual, case.out_channels)))
        expected += F.interpolate(residual, scale_factor=2, mode="nearest")
    np.testing.assert_allclose(specified(case, data), expected.numpy(), rtol=1e-12, atol=1e-12)


@each_isa
@pytest.mark.parametrize("out_channels", [1, 3, 8, 16, 17, 24, 33, 40, 64])
def test_unused_channels_of_the_output_are_zero(out_channels: int, isa: Isa) -> None:
    case = Case(2, 16, out_channels, 3, 5, residual=0)
    y = run(case, isa, draw(case, isa))  # [N, H, CBo, W, 32]
    assert blocks(out_channels) == y.shape[2]
    lanes = np.moveaxis(y, 3, 2).reshape(2, 3, 5, -1)  # [N, H, W, CBo * 32]
    assert not lanes[..., out_channels:].any()
    assert lanes[..., :out_channels].any()


@each_isa
@pytest.mark.parametrize(
    "case", [Case(3, 48, 96, 7, 9, residual=None), Case(2, 32, 3, 21, 70), Case(4, 512, 64, 8, 8, residual=1)], ids=str
)
def test_same_bits_for_any_split_and_batch(case: Case, isa: Isa) -> None:
    data = draw(case, isa)
    whole = run(case, isa, data)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(run(case, isa, data, threads), whole)
    for i in range(case.n):
        residual = None if data.residual is None else data.residual[i : i + 1].copy()
        alone = Data(data.x[i : i + 1].copy(), data.weight, data.bias, residual)
        np.testing.assert_array_equal(run(case, isa, alone), whole[i : i + 1])


@pytest.mark.skipif("avx512" not in ISAS, reason="this processor has no AVX-512")
@pytest.mark.parametrize("case", [Case(2, 48, 96, 7, 9, residual=0), Case(2, 32, 3, 21, 70)], ids=str)
def test_float32_isas_give_the_same_bits(case: Case) -> None:
    data = draw(case, "avx2")
    np.testing.assert_array_equal(run(case, "avx2", data), run(case, "avx512", data))


@each_isa
def test_reads_only_the_map_and_writes_only_the_output(isa: Isa) -> None:
    """Every array lies between guard values of NaN: a stray read spreads NaN, and a stray write changes a guard."""
    case = Case(2, 33, 17, 5, 9, residual=0)
    data = draw(case, isa)
    assert data.residual is not None
    x, residual, y = (
        poison(np.empty((3, *array.shape), array.dtype)) for array in (data.x, data.residual, data.residual)
    )
    x[1], residual[1] = data.x, data.residual
    step, expected = step_of(case, isa, data)
    run_steps(step)
    for name, array in (("x", x), ("residual", residual), ("y", y)):
        step.record[name] = array[1].ctypes.data
    run_steps(step)
    np.testing.assert_array_equal(y[1], expected)
    for around in (y[0], y[2]):
        assert (around.view(np.uint8) == 0xFF).all()


@each_isa
def test_the_peak_counts_its_operations(isa: Isa) -> None:
    assert 10**6 <= native.conv_peak(get_args(Isa).index(isa), 10**6) < 1.1 * 10**6
