"""Programs, pools, and the choice of the ISA."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
from native import ISAS, each_isa, plain, random_values

from kernels.isa import ISA_VARIABLE, Isa, IsaError, choose_isa, input_dtype
from kernels.layouts import Array, empty_padded, from_padded, from_plain
from kernels.native import native
from kernels.ops.modulate import Modulation, modulate
from kernels.program import Pool, Program, Step, StepError

THREADS = [1, 2, 4]


def chain(isa: Isa, x: Array, length: int) -> tuple[list[Step], Array]:
    """Return steps that each read the bits of the previous output as a plain map and shrink negative values."""
    n, height, _, width, _ = x.shape
    steps = []
    for i in range(length):
        out = empty_padded(n, 32, height + 2 * i, width + 2 * i, input_dtype(isa))
        steps.append(modulate(isa, x, Modulation(), out))
        x = out.view(x.dtype)
    return steps, out


@each_isa
@pytest.mark.parametrize("threads", THREADS)
def test_steps_run_in_order(isa: Isa, threads: int) -> None:
    x = plain(random_values(np.random.default_rng(0), (2, 32, 6, 7), isa), isa)
    steps, last = chain(isa, x, 40)
    expected_steps, expected = chain(isa, x, 40)
    pool = Pool(threads)
    for step in expected_steps:
        Pool(1).run(Program([step]))
    seconds = pool.run(Program(steps))
    assert np.array_equal(last, expected)
    assert seconds["modulate"] > 0
    assert sum(seconds.values()) == seconds["modulate"]


@each_isa
@pytest.mark.parametrize("threads", THREADS)
def test_steps_that_overlap_wait_for_what_they_read(isa: Isa, threads: int) -> None:
    """Two chains alternate: each step reads the output of the step two before it and may overlap the step between."""
    random = np.random.default_rng(1)
    maps = [plain(random_values(random, (1, 32, 40 + 9 * i, 30), isa), isa) for i in range(2)]
    pool = Pool(threads)
    for _ in range(10):
        chains = [chain(isa, x, 20) for x in maps]
        steps = [step for pair in zip(*(steps for steps, _ in chains), strict=True) for step in pair]
        pool.run(Program(steps, [1] * len(steps)))
        for x, (_, last) in zip(maps, chains, strict=True):
            alone, expected = chain(isa, x, 20)
            Pool(1).run(Program(alone))
            assert np.array_equal(last, expected)


@each_isa
def test_a_pool_runs_many_programs(isa: Isa) -> None:
    x = plain(random_values(np.random.default_rng(0), (1, 32, 3, 3), isa), isa)
    pool = Pool(3)
    for length in [1, 2, 5] * 50:
        steps, last = chain(isa, x, length)
        alone, expected = chain(isa, x, length)
        pool.run(Program(steps))
        Pool(1).run(Program(alone))
        assert np.array_equal(last, expected)
    assert pool.run(Program([]))["modulate"] == 0


@each_isa
def test_one_pool_from_several_threads(isa: Isa) -> None:
    pool = Pool(2)

    def one(seed: int) -> bool:
        x = plain(random_values(np.random.default_rng(seed), (1, 32, 9, 9), isa), isa)
        steps, last = chain(isa, x, 5)
        for _ in range(20):
            pool.run(Program(steps))
        alone, expected = chain(isa, x, 5)
        Pool(1).run(Program(alone))
        return np.array_equal(last, expected)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(one, range(8)))


@each_isa
def test_arguments_are_changed_in_place(isa: Isa) -> None:
    x = plain(-np.ones((1, 32, 4, 4)), isa)
    step, out = chain(isa, x, 1)
    program, pool = Program(step), Pool(1)
    pool.run(program)
    leaky = out.copy()
    program.args(0)["leaky"] = 0
    pool.run(program)
    assert np.array_equal(from_padded(out, 32), from_plain(x, 32))
    assert not np.array_equal(out, leaky)
    program.replace(0, step[0])
    pool.run(program)
    assert np.array_equal(out, leaky)


def test_a_program_keeps_its_arrays() -> None:
    if not ISAS:
        pytest.skip("no AVX2 here")
    program = Program(chain(ISAS[0], plain(np.ones((1, 32, 64, 64)), ISAS[0]), 3)[0])
    Pool(2).run(program)  # only the program owns the maps


def test_unknown_steps_and_isas_are_refused() -> None:
    if not ISAS:
        pytest.skip("no AVX2 here")
    program = Program(chain(ISAS[0], plain(np.ones((1, 32, 2, 2)), ISAS[0]), 1)[0])
    pool = Pool(1)
    program.args(0)["kind"] = 99
    with pytest.raises(ValueError, match="kind is unknown"):
        pool.run(program)
    program.args(0)["kind"], program.args(0)["overlaps"] = 2, -1
    with pytest.raises(ValueError, match="overlaps are negative"):
        pool.run(program)
    program.args(0)["overlaps"] = 0
    program.args(0)["isa"] = len(native.ISAS)
    with pytest.raises(ValueError, match="isa is unknown"):
        pool.run(program)
    with pytest.raises(ValueError, match="not whole"):
        native.Pool(1).run(program.memory[:-8], np.zeros(native.SECONDS))
    with pytest.raises(StepError, match="expected threads of 1 or more but got 0"):
        Pool(0)


def test_isas_are_numbered_as_in_the_header() -> None:
    assert get_args(Isa) == native.ISAS


def test_isa_choice() -> None:
    if not ISAS:
        with pytest.raises(IsaError, match="use the torch engine"):
            choose_isa("float32", {})
        return
    assert choose_isa("float32", {}) == [isa for isa in ISAS if input_dtype(isa) == "float32"][-1]
    assert choose_isa("float32", {ISA_VARIABLE: "avx2"}) == "avx2"
    with pytest.raises(IsaError, match=f"expected {ISA_VARIABLE} to be an ISA of bf16"):
        choose_isa("bf16", {ISA_VARIABLE: "avx2"})
