"""What the tests of steps share: the tiers of this machine, random data of a tier, and one step run on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from kernels.layouts import Array, Float64, from_entries, from_storage, to_plain, to_storage
from kernels.steps import Pool, Program, Step, Tier, input_dtype, run, supported_tiers, tier_dtype

TIERS = supported_tiers()
each_tier = pytest.mark.parametrize("tier", TIERS or [pytest.param("none", marks=pytest.mark.skip("no AVX2 here"))])

_pools: dict[int, Pool] = {}


def run_steps(*steps: Step, threads: int = 1) -> None:
    """Run steps as a program on a pool that the tests of a process share."""
    run(Program(steps), _pools.setdefault(threads, Pool(threads)))


def random_values(random: np.random.Generator, shape: tuple[int, ...], tier: Tier) -> Float64:
    """Normal values that the tier's T and I both hold exactly."""
    values = from_storage(to_storage(random.standard_normal(shape), input_dtype(tier)))
    return np.where(np.abs(values) < 2.0**-17, 0, values)  # the rest has bits below the last one of float16


def stored(values: Array, tier: Tier) -> Array:
    """Values as T."""
    return to_storage(values, tier_dtype(tier))


def stored_input(values: Array, tier: Tier) -> Array:
    """Values as I."""
    return to_storage(values, input_dtype(tier))


def plain(values: Array, tier: Tier) -> Array:
    """[N, C, H, W] -> plain map."""
    return to_plain(values, tier_dtype(tier))


@dataclass(frozen=True)
class CodebookCase:
    """One codebook, and what it must give."""

    step: Step
    entries: Array
    expected: Float64  # [U5, 2C]
    bound: Float64


def entry_values(entries: Array, channels: int) -> Float64:
    """Entries -> [U5, 2C]."""
    return np.concatenate(from_entries(entries, channels), axis=1)


def poison(out: Array) -> Array:
    """Fill an output with what no kernel writes, so that a gap shows."""
    out.view(np.uint8)[...] = 0xFF  # NaN in every dtype
    return out
