"""The cases of the GPU benchmark on emulated kernels, its batches and its table; test_gpu_steps.py has the command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.common.maps import read_maps
from benchmarks.gpu import case as gpu_case
from benchmarks.gpu import cases as gpu_cases
from benchmarks.gpu import codebook_cases as gpu_codebook_cases
from benchmarks.gpu.case import GRADIENT_LIMITS, away_from_the_kink, largest_error, random_values, two_norm_error
from benchmarks.gpu.cases import cases
from benchmarks.gpu.model import batches_of
from benchmarks.gpu.table import markdown
from kernels.cuda.host import tensors
from kernels.cuda.host.library import Library
from kernels.ops.plan import plan
from spade_core.codebook import modulate as modulate_module
from spade_core.codebook.entries import level_tensors
from spade_core.codebook.modulate import by_entry
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import preset
from spade_core.models.dense import synthesize_dense
from spade_core.models.seeded import seeded_generator
from tests.kernels.cuda_emulated import emulated

__all__ = ["emulated"]

CPU = torch.device("cpu")
SMALL = replace(preset("coco"), height=32, width=32, nf=2)


@pytest.fixture
def kernels_on_the_cpu(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "installed", lambda: emulated)


@pytest.mark.usefixtures("kernels_on_the_cpu")
def test_a_wrong_case_is_caught() -> None:
    planned = list(cases(SMALL, read_maps(SMALL, None, count=1), CPU, batch=1, dtypes=(torch.float16,)))
    assert {case.name for case in planned} > {"plan", "modulate_codebook_backward"}
    for case in (one.make() for one in planned if one.name in ("plan", "modulate_codebook_backward")):
        wrong = replace(case, expected=lambda case=case: tuple(output + 1 for output in case.expected()))
        missing = replace(case, expected=lambda case=case: tuple(output * torch.nan for output in case.expected()))
        assert wrong.error() > case.limit
        assert not missing.error() <= case.limit


def test_a_case_that_is_left_out_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("an input was drawn")

    for module in (gpu_case, gpu_cases, gpu_codebook_cases):
        monkeypatch.setattr(module, "random_values", refuse)
    monkeypatch.setattr(gpu_cases, "random_map", refuse)
    found = list(cases(SMALL, read_maps(SMALL, None, count=1), CPU, batch=1))
    assert len(found) > 30
    with pytest.raises(AssertionError, match="an input was drawn"):
        found[1].make()


def test_inputs_are_drawn_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    usual = torch.randn

    def randn(*shape: object, **options: object) -> Tensor:
        seen.append((options["device"], options["generator"].device))  # type: ignore[attr-defined]
        return usual(*shape, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "randn", randn)
    first, again, other = (random_values((4, 4), torch.float16, CPU, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert seen == [(CPU, CPU)] * 3


def test_a_rounding_at_the_kink_of_leaky_relu_is_no_error_of_a_gradient() -> None:
    """A kernel whose value is -1e-7 where the specification has 1e-7 takes the other slope: correct, and 0.8 dy off."""
    values, dy = torch.tensor([1e-7, 0.5, -0.5]).double(), torch.ones(3)
    flipped = values - 2e-7

    def gradients(of: Tensor, dy: Tensor) -> tuple[Tensor]:
        return (torch.where(of > 0, dy, 0.2 * dy),)

    assert largest_error(gradients(flipped, dy), gradients(values, dy)) > 0.7
    kept = away_from_the_kink(dy, values)
    assert kept.tolist() == [0, 1, 1]
    assert two_norm_error(gradients(flipped, kept), gradients(values, kept)) == 0
    wrong = (torch.tensor([0.0, 1.0, 0.21]),)
    assert two_norm_error(wrong, gradients(values, kept)) > GRADIENT_LIMITS[torch.float16]


def test_a_training_step_on_the_kernels_has_the_gradient_of_the_dense_form(
    emulated: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modulate_module, "library_for", lambda _x: emulated)
    config = replace(SMALL, height=64, label_nc=5)
    symbols = (
        np.random.default_rng(0).integers(0, config.symbols, (2, 8, 4)).repeat(8, 1).repeat(8, 2).astype(np.uint16)
    )
    levels = {
        size: replace(level, order=by_entry(level.index, len(level.patches5)))
        for size, level in level_tensors(
            plan(symbols, config.level_sizes, config.symbols, 3), torch.device("cpu")
        ).items()
    }
    generator, on_host = seeded_generator(config).train(), torch.from_numpy(symbols.astype(np.int32))
    gradients = []
    for ours in (True, False):
        generator.zero_grad()
        image = (
            synthesize_codebook(generator, None, on_host, levels, None)
            if ours
            else synthesize_dense(generator, on_host, None)
        )
        image.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in generator.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*gradients, dim=0) > 1 - 1e-5


@pytest.mark.parametrize("size", [1, 8, 32])
def test_no_batch_of_the_model_step_has_a_map_twice(size: int) -> None:
    batches = batches_of(read_maps(SMALL, None, count=4), size)
    assert {batch.shape for batch in batches} == {(size, 32, 32)}
    assert len(batches) >= 3
    every = np.concatenate(batches)
    assert len(np.unique(every, axis=0)) == len(every)


def test_the_table_shows_rows_and_failures() -> None:
    report = {
        "date": "2026-01-01", "rehearsal": False, "machine": {"gpu": "H200"}, "model": {"failed": "out of memory"},
        "training": {"rows": [{"form": "spade bf16", "batch": 8, "ms": 1.25, "cosine_to_float32": 0.5}]},
    }  # fmt: skip
    text = markdown(report)
    assert "- gpu: H200" in text
    assert "- failed: out of memory" in text
    assert "| spade bf16 | 8 | 1.25 | 0.5 |" in text
