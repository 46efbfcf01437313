"""Helpers of the tests of steps: the ISAs of this machine, random data for an ISA, and one step run on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from kernels.isa import Isa, input_dtype, isa_dtype, supported_isas
from kernels.layouts import Array, Float64, from_entries, from_storage, to_plain, to_storage
from kernels.program import Pool, Program, Step

ISAS = supported_isas()
each_isa = pytest.mark.parametrize("isa", ISAS or [pytest.param("none", marks=pytest.mark.skip("no AVX2 here"))])

_pools: dict[int, Pool] = {}


def run_steps(*steps: Step, threads: int = 1) -> None:
    """Run steps as a program on a pool that the tests of a process share."""
    _pools.setdefault(threads, Pool(threads)).run(Program(steps))


def random_values(random: np.random.Generator, shape: tuple[int, ...], isa: Isa) -> Float64:
    """Draw normal values that T and I of an ISA both store exactly."""
    values = from_storage(to_storage(random.standard_normal(shape), input_dtype(isa)))
    return np.where(np.abs(values) < 2.0**-17, 0, values)  # smaller values have bits that float16 cannot store


def stored(values: Array, isa: Isa) -> Array:
    """Values as T."""
    return to_storage(values, isa_dtype(isa))


def stored_input(values: Array, isa: Isa) -> Array:
    """Values as I."""
    return to_storage(values, input_dtype(isa))


def plain(values: Array, isa: Isa) -> Array:
    """[N, C, H, W] -> plain map."""
    return to_plain(values, isa_dtype(isa))


@dataclass(frozen=True)
class CodebookCase:
    """One codebook step, its output, and the expected values with their error bound."""

    step: Step
    entries: Array
    expected: Float64  # [U5, 2C]
    bound: Float64


def entry_values(entries: Array, channels: int) -> Float64:
    """Entries -> [U5, 2C]."""
    return np.concatenate(from_entries(entries, channels), axis=1)


def poison(out: Array) -> Array:
    """Fill an output with a value that no kernel writes, so that a gap shows."""
    out.view(np.uint8)[...] = 0xFF  # NaN in every dtype
    return out
