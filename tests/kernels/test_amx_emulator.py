"""The emulator's instructions give the bits of exact arithmetic, as Intel's manual orders it, and of the processor."""

from __future__ import annotations

import ctypes
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from amx_emulated import AVX2, EMULATOR, FLAGS, compile_cpp, processor_has

from kernels.isa import supported_isas

Bits = npt.NDArray[np.uint16]
AMX_FLAGS = ["-mavx512fp16", "-mamx-tile", "-mamx-bf16", "-mamx-int8"]


def probe(folder: Path, emulated: bool) -> ctypes.CDLL:
    """probe.cpp as a library, on the emulator or on the processor's own instructions."""
    out = folder / f"probe-{emulated}.so"
    flags = FLAGS if emulated else [*(flag for flag in FLAGS if flag != f"-I{EMULATOR}"), *AMX_FLAGS]
    compile_cpp(out, *flags, "-fvisibility=default", EMULATOR / "probe.cpp")
    return ctypes.CDLL(str(out))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if not processor_has(*AVX2):
        pytest.skip(f"the emulator of AMX needs a processor with {', '.join(AVX2)}")
    return probe(tmp_path_factory.mktemp("probe"), emulated=True)


def rounded(value: Fraction, bits: int, least: int | None) -> float:
    """The nearest number of so many bits, ties to even; below 2^least numbers have the spacing of 2^least."""
    if value == 0:
        return 0.0
    exponent = math.frexp(float(value))[1] - 1
    spacing = Fraction(2) ** ((exponent if least is None else max(exponent, least)) - bits + 1)
    return float(round(value / spacing) * spacing)


def float32_flushed(value: Fraction) -> float:
    """The nearest float32; a denormal result becomes zero."""
    nearest = rounded(value, 24, None)
    return nearest if abs(nearest) >= 2.0**-126 else 0.0


def product(library: ctypes.CDLL, int8: bool, sums: npt.NDArray, a: npt.NDArray, b: npt.NDArray) -> npt.NDArray:
    out = sums.copy()
    library.probe_product(int(int8), len(a), *(ctypes.c_void_p(one.ctypes.data) for one in (out, a, b)))
    return out


def bf16_tiles(random: np.random.Generator, rows: int) -> tuple[npt.NDArray[np.float32], Bits, Bits]:
    """Sums and two factors: values of all sizes that keep products finite, denormals and products near them too."""

    def values(*shape: int) -> npt.NDArray[np.float32]:
        size = np.where(random.random(shape) < 0.3, random.integers(-140, -60, shape), random.integers(-8, 8, shape))
        return (random.standard_normal(shape) * 2.0**size).astype(np.float32)

    a, b = ((values(n, 32).view(np.uint32) >> 16).astype(np.uint16) for n in (rows, 16))
    return values(rows, 16) * random.choice([1, 0], (rows, 16)).astype(np.float32), a, b


def widened(bf16: Bits) -> npt.NDArray[np.float64]:
    """bf16 as float64, with denormals as zero."""
    values = (bf16.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.where(np.abs(values) < 2.0**-126, 0, values)


@pytest.mark.parametrize("rows", [6, 1])
def test_products_of_bf16(emulator: ctypes.CDLL, rows: int) -> None:
    sums, a, b = bf16_tiles(np.random.default_rng(rows), rows)
    before = np.where(np.abs(sums) < 2.0**-126, 0, sums).astype(np.float64)
    x, y = widened(a), widened(b).reshape(16, 16, 2)  # y [k][column][even, odd]
    expected = np.empty((rows, 16), np.float32)
    for m in range(rows):
        for n in range(16):
            chains = [0.0, 0.0]
            for k in range(16):
                for i in range(2):
                    exact = Fraction(x[m, 2 * k + i]) * Fraction(y[k, n, i]) + Fraction(chains[i])
                    chains[i] = float32_flushed(exact)
            both = float32_flushed(Fraction(chains[0]) + Fraction(chains[1]))
            expected[m, n] = float32_flushed(Fraction(before[m, n]) + Fraction(both))
    np.testing.assert_array_equal(product(emulator, False, sums, a, b), expected)


@pytest.mark.parametrize("rows", [16, 1])
def test_products_of_bytes_wrap(emulator: ctypes.CDLL, rows: int) -> None:
    random = np.random.default_rng(rows)
    a = random.integers(0, 256, (rows, 64), np.uint8)
    b = random.integers(-128, 128, (16, 64), np.int8)
    sums = random.integers(-(2**31), 2**31, (rows, 16), np.int32)
    exact = np.einsum("mki,kni->mn", a.reshape(rows, 16, 4).astype(np.int64), b.reshape(16, 16, 4).astype(np.int64))
    expected = (exact + sums).astype(np.int32)
    np.testing.assert_array_equal(product(emulator, True, sums, a, b), expected)


def float16(library: ctypes.CDLL, a: Bits, b: Bits, c: Bits) -> Bits:
    """a - b, a * b, max(a, b) and a * b + c of float16 bits: [4, count], count a multiple of 32."""
    out = np.empty((len(a) // 32, 4, 32), np.uint16)
    for i, part in enumerate(out):
        at = slice(32 * i, 32 * i + 32)
        library.probe_float16(*(ctypes.c_void_p(one.ctypes.data) for one in (a[at], b[at], c[at], part)))
    return out.swapaxes(0, 1).reshape(4, -1)


def float16_triples(random: np.random.Generator) -> tuple[Bits, Bits, Bits]:
    """Finite float16 of all sizes; and products at a tie between two float16, plus the least float16 that breaks it."""
    a, b, c = (random.integers(0, 0x7C00, 1024).astype(np.uint16) for _ in range(3))
    a[:256] %= 0x400  # denormals
    c[::2] %= 0x2000
    a[512:544] = np.float16(1.5).view(np.uint16)  # 1.5 times an odd last bit is a tie
    b[512:544] = np.arange(0x3C01, 0x3C41, 2)
    c[512:544] = 1
    signs = (random.integers(0, 2, (3, 1024)) << 15).astype(np.uint16)
    return a | signs[0], b | signs[1], c | signs[2]


def test_arithmetic_of_float16(emulator: ctypes.CDLL) -> None:
    bits = float16_triples(np.random.default_rng(0))
    a, b, c = ([Fraction(float(value)) for value in one.view(np.float16)] for one in bits)

    def nearest(values: list[Fraction]) -> npt.NDArray[np.float64]:
        of = np.array([rounded(value, 11, -14) for value in values])
        return np.where(np.abs(of) > 65504, np.copysign(np.inf, of), of)

    got = float16(emulator, *bits).view(np.float16)
    np.testing.assert_array_equal(got[0], nearest([x - y for x, y in zip(a, b, strict=True)]))
    np.testing.assert_array_equal(got[1], nearest([x * y for x, y in zip(a, b, strict=True)]))
    np.testing.assert_array_equal(got[2], nearest([max(x, y) for x, y in zip(a, b, strict=True)]))
    np.testing.assert_array_equal(got[3], nearest([x * y + z for x, y, z in zip(a, b, c, strict=True)]))


def conversions(library: ctypes.CDLL, values: npt.NDArray[np.float32]) -> tuple[Bits, npt.NDArray[np.float32]]:
    """float32 -> float16 bits, and back to float32."""
    halves, back = np.empty(values.shape, np.uint16), np.empty_like(values)
    for i in range(0, len(values), 16):
        parts = (one[i : i + 16].ctypes.data for one in (values, halves, back))
        library.probe_conversion(*(ctypes.c_void_p(at) for at in parts))
    return halves, back


def test_conversions_of_float16(emulator: ctypes.CDLL) -> None:
    random = np.random.default_rng(0)
    values = (random.standard_normal(1024) * 2.0 ** random.integers(-26, 17, 1024)).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    halves, back = conversions(emulator, values)
    np.testing.assert_array_equal(halves, expected.view(np.uint16))
    np.testing.assert_array_equal(back, expected.astype(np.float32))


@pytest.mark.skipif("amx" not in supported_isas(), reason="this processor has no AMX to compare with")
def test_the_processor_gives_the_same_bits(emulator: ctypes.CDLL, tmp_path: Path) -> None:
    processor, random = probe(tmp_path, emulated=False), np.random.default_rng(0)
    for rows in (16, 7, 1):
        for _ in range(50):
            of = bf16_tiles(random, rows)
            got, expected = (product(one, False, *of).view(np.uint32) for one in (emulator, processor))
            np.testing.assert_array_equal(got, expected)
    for _ in range(20):
        triples = float16_triples(random)
        np.testing.assert_array_equal(float16(emulator, *triples), float16(processor, *triples))
