"""Every GPU that the kernels are compiled for takes its own path through the codebook's product, on the emulator."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from cuda_emulated import REPOSITORY
from tolerances import assert_within, gamma, stored_bound

from kernels.constants import HIDDEN
from kernels.cuda.codebook.codebook import Codebook, codebook, per_tap_weight
from kernels.cuda.host.library import CudaError, Library
from kernels.cuda.host.toolkit import ARCHITECTURES
from kernels.ops.codebook import codebook_numpy

# Bytes of shared memory that a block of the product asks for: two, three or four stages of 48 KB.
STAGES = {80: 3, 86: 2, 89: 2, 90: 4, 100: 3, 120: 2}


def problem(dtype: torch.dtype, *, per_tap: bool = False) -> Codebook:
    random = torch.Generator().manual_seed(0)
    actv = torch.randn(14, HIDDEN, generator=random).relu().to(dtype)
    actv[-1] = 0
    patches = torch.randint(0, 14, (130, 9), generator=random, dtype=torch.int32)
    weight, bias = torch.randn(40, 9 * HIDDEN, generator=random).to(dtype), torch.randn(40, generator=random)
    products = torch.empty(14, 9 * 40) if per_tap else None
    weight = per_tap_weight(weight) if per_tap else weight
    return Codebook(actv, patches, weight, bias, torch.empty(130, 40, dtype=dtype), products)


@pytest.mark.parametrize("target", list(STAGES))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_each_gpu_takes_its_path(
    emulated: Library, target: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPADE_EMULATOR_TARGET", str(target))
    own, per_tap = problem(dtype), problem(dtype, per_tap=True)
    codebook(own, library=emulated)
    assert emulated._dll.emulated_last_dynamic_shared() == STAGES[target] * (48 << 10)
    codebook(per_tap, library=emulated)
    arrays = own.actv.double().numpy(), own.patches.numpy(), own.weight.T.double().numpy(), own.bias.double().numpy()
    expected = codebook_numpy(*arrays)
    sizes = codebook_numpy(np.abs(arrays[0]), arrays[1], np.abs(arrays[2]), np.abs(arrays[3]))
    name = str(dtype).removeprefix("torch.")
    for one in (own, per_tap):
        assert_within(one.entries.double(), expected, stored_bound(gamma(9 * HIDDEN + 9) * sizes, expected, name))


def test_a_gpu_without_the_memory_is_refused_by_name(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPADE_EMULATOR_TARGET", "75")
    with pytest.raises(CudaError, match=r"\[codebook\] CUDA refused the launch: invalid"):
        codebook(problem(torch.float16), library=emulated)


def test_every_compiled_target_is_tested_and_in_the_table_of_the_docs() -> None:
    assert {int(re.sub(r"\D", "", name)) for name in ARCHITECTURES} == set(STAGES)
    text = (REPOSITORY / "docs" / "cuda.md").read_text()
    for architecture in ARCHITECTURES:
        target = int(re.sub(r"\D", "", architecture))
        assert re.search(rf"\| {architecture} \|.*\| {STAGES[target]} stages, {STAGES[target] * 48 * 1024:,} \|", text)
