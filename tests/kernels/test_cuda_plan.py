"""The emulated CUDA plan: the same integers as the specification, in any order of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_emulated import compile_emulated, each_order
from hypothesis import HealthCheck, given, settings
from test_plan import batches

from kernels.cuda.host.library import CudaError, Library
from kernels.cuda.plan.plan import CudaPlan
from kernels.layouts import Symbols
from kernels.ops.plan import Sizes, plan_numpy

CPU = torch.device("cpu")


def check(library: Library, symbols: Symbols, sizes: Sizes, n_symbols: int, kernel_size: int) -> None:
    plan = CudaPlan(symbols.shape, sizes, n_symbols, kernel_size, CPU, library)  # type: ignore[arg-type]
    plan.symbols.copy_(torch.from_numpy(symbols))
    plan.find()
    n = len(symbols)
    for i, (level, expected) in enumerate(
        zip(plan.levels(), plan_numpy(symbols, sizes, n_symbols, kernel_size), strict=True)
    ):
        for field in ("index", "patches3", "patches5"):
            np.testing.assert_array_equal(
                getattr(level, field).numpy(), getattr(expected, field), err_msg=f"{i} {field}"
            )
        for offsets, wanted in ((plan.offsets3, expected.patches3_offsets), (plan.offsets5, expected.patches5_offsets)):
            own = offsets[i * n : (i + 1) * n + 1] - offsets[i * n]
            np.testing.assert_array_equal(own.numpy(), wanted)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(batches())
def test_is_the_specification(emulated: Library, batch: tuple[Symbols, Sizes, int, int]) -> None:
    check(emulated, *batch)


@each_order
@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(batch=batches())
def test_does_not_depend_on_the_order_of_threads(
    emulated: Library, order: str, monkeypatch: pytest.MonkeyPatch, batch: tuple[Symbols, Sizes, int, int]
) -> None:
    monkeypatch.setenv("SPADE_EMULATOR_ORDER", order)
    check(emulated, *batch)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_all_levels_of_a_generator(emulated: Library, kernel_size: int) -> None:
    symbols = np.random.default_rng(0).integers(0, 3, (2, 8, 8)).repeat(8, 1).repeat(8, 2).astype(np.uint16)
    check(emulated, symbols, [(2 << i, 2 << i) for i in range(6)], 3, kernel_size)


def test_windows_whose_hashes_collide_stay_apart(tmp_path: Path) -> None:
    """With hashes of two bits nearly all windows collide."""
    path = tmp_path / "collisions.so"
    compile_emulated(path, "-DSPADE_PLAN_TAG_MASK=3u", kernels=["plan", "error"])
    symbols = np.random.default_rng(1).integers(0, 4, (2, 12, 10)).astype(np.uint16)
    check(Library(path, "cpu"), symbols, [(12, 10), (5, 7)], 4, 3)


def test_rows_beyond_the_room_of_a_level_are_left_out(emulated: Library) -> None:
    symbols = np.random.default_rng(2).integers(0, 50, (1, 8, 8)).astype(np.uint16)
    plan = CudaPlan((1, 8, 8), [(8, 8)], 50, 3, CPU, emulated)
    plan.symbols.copy_(torch.from_numpy(symbols))
    plan.find()
    tables = [torch.full((12, 9), -7, dtype=torch.int32) for _ in range(2)]
    plan.write(tables[0], [2], [10], tables[1], [0], [10])
    (expected,) = plan_numpy(symbols, [(8, 8)], 50, 3)
    np.testing.assert_array_equal(tables[0][2:].numpy(), expected.patches3[:10])
    np.testing.assert_array_equal(tables[1][:10].numpy(), np.minimum(expected.patches5[:10], 10))
    assert expected.patches5[:10].max() > 10
    assert (tables[0][:2] == -7).all()
    assert (tables[1][10:] == -7).all()


def test_sizes_that_cannot_be_planned_are_named(emulated: Library) -> None:
    with pytest.raises(CudaError, match=r"\[plan_find\] a size is below 1.*kernel_size=2"):
        CudaPlan((1, 8, 8), [(8, 8)], 5, 2, CPU, emulated)
    with pytest.raises(CudaError, match=r"\[plan_find\] a size is below 1.*n_symbols=70000"):
        CudaPlan((1, 8, 8), [(8, 8)], 70000, 3, CPU, emulated)
    with pytest.raises(CudaError, match=r"\[plan_find\] a size is below 1.*height=\[0\]"):
        CudaPlan((1, 8, 8), [(0, 8)], 5, 3, CPU, emulated)
    plan = CudaPlan((1, 8, 8), [(8, 8)], 5, 3, CPU, emulated)
    with pytest.raises(CudaError, match=r"expected room for 20 rows in patches3 but got 19"):
        plan.write(
            torch.empty((19, 9), dtype=torch.int32), [10], [10], torch.empty((9, 9), dtype=torch.int32), [0], [9]
        )


def test_only_the_first_lane_of_a_run_looks_for_a_slot(emulated: Library) -> None:
    """In a map of one label the rows of 64 hold two runs for each warp of 32 lanes, three in the second pass."""
    before = emulated._dll.emulated_loads_past_l1()
    check(emulated, np.zeros((1, 64, 64), np.uint16), [(64, 64)], 2, 3)
    warps = 64 * 64 // 32
    probes = emulated._dll.emulated_loads_past_l1() - before
    assert warps * 2 <= probes <= warps * 8, "a lane of a run looked for itself"
