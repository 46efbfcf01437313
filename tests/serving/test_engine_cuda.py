"""The CUDA program of the torch engine on emulated kernels: it draws the images of the dense form."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from generators import trained_like

from kernels.cuda.host.library import CudaError, Library
from serving.engines import reference as engine_module
from serving.engines.cuda import program as cuda_program
from serving.engines.cuda.codebooks import Codebooks, bucket_of, room_of
from serving.engines.cuda.generator import CudaGenerator
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig, Norm, level_sizes, preset
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed
from tests.kernels.cuda_emulated import emulated

__all__ = ["emulated"]

CPU = torch.device("cpu")
# The project's limits on images in -1..1: of float32 by value, of bf16 by PSNR.
FLOAT32_TOLERANCE = 1e-4
BF16_PSNR_DB = 30.0

Symbols = npt.NDArray[np.uint16]
Styles = npt.NDArray[np.float32]


def small(**change: object) -> GeneratorConfig:
    defaults: dict[str, object] = {"label_nc": 6, "height": 32, "width": 32, "nf": 2, "instance_edges": False}
    return replace(preset("coco"), **(defaults | change))  # type: ignore[arg-type]


def maps(config: GeneratorConfig, count: int, seed: int = 0) -> Symbols:
    """Blocks of random symbols."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, config.symbols, (count, config.height // 8, config.width // 8))
    return coarse.repeat(8, 1).repeat(8, 2).astype(np.uint16)


def styles(config: GeneratorConfig, count: int) -> Styles | None:
    return np.stack([style_from_seed(i) for i in range(count)]) if config.style else None


def dense(generator: Generator, symbols: Symbols, style: Styles | None) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        z = None if style is None else torch.from_numpy(style)
        return torch.tanh(synthesize_dense(generator, torch.from_numpy(symbols.astype(np.int32)), z)).numpy()


def assert_close(image: torch.Tensor, reference: npt.NDArray[np.float32]) -> None:
    error = np.abs(image.numpy() - reference).max()
    assert error <= FLOAT32_TOLERANCE, f"max error {error}"
    assert reference.std() > 0.05, "a flat image would agree with anything"


@pytest.mark.parametrize(
    ("norm", "style", "kernel_size"), [("batch", False, 3), ("instance", True, 3), ("batch", False, 1)]
)
def test_is_the_dense_form(emulated: Library, norm: Norm, style: bool, kernel_size: int) -> None:
    config = small(norm=norm, style=style, spade_kernel=kernel_size, height=64)
    generator, symbols, z = trained_like(config), maps(config, 2), styles(config, 2)
    program = CudaGenerator(generator, torch.float32, CPU, emulated)
    assert_close(program.run(symbols, z, values=True), dense(generator, symbols, z))


def test_one_map_whose_start_has_one_column(emulated: Library) -> None:
    config = small(height=96)
    generator, symbols = trained_like(config), maps(config, 1)
    program = CudaGenerator(generator, torch.float32, CPU, emulated)
    assert_close(program.run(symbols, None, values=True), dense(generator, symbols, None))


def test_another_depth_edges_and_a_size_that_was_not_configured(emulated: Library) -> None:
    config = small(upsampling="more", instance_edges=True, height=64, width=128)
    generator, symbols = trained_like(config), maps(config, 1)[:, :, :64]
    program = CudaGenerator(generator, torch.float32, CPU, emulated)
    assert_close(program.run(symbols, None, values=True), dense(generator, symbols, None))


def test_bf16_is_close(emulated: Library) -> None:
    config = small(nf=4)
    generator, symbols = trained_like(config), np.full((1, 32, 32), 2, np.uint16)
    symbols[:, :, 16:] = 3
    image = CudaGenerator(generator, torch.bfloat16, CPU, emulated).run(symbols, None, values=True).numpy()
    assert 10 * np.log10(4 / np.mean((image - dense(generator, symbols, None)) ** 2)) > BF16_PSNR_DB


def test_pixels_are_the_values_truncated(emulated: Library) -> None:
    config = small()
    program, symbols = CudaGenerator(trained_like(config), torch.float32, CPU, emulated), maps(config, 1)
    values = program.run(symbols, None, values=True).numpy()
    expected = ((values + 1) * np.float32(127.5)).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(program.run(symbols, None, values=False).numpy(), expected)


def test_maps_that_come_again_or_repeat_are_planned_once_and_give_the_same_image(emulated: Library) -> None:
    config = small(style=True)
    generator, symbols = trained_like(config), maps(config, 3)
    z = styles(config, 4)
    assert z is not None
    program = CudaGenerator(generator, torch.float32, CPU, emulated)
    first = Timings()
    program.run(symbols[:2], z[:2], values=True, timings=first)
    assert (first.cached_maps, first.plan_s > 0, first.codebook_s > 0) == (0, True, True)
    again = Timings()
    both = program.run(symbols[:2], z[2:], values=True, timings=again)
    assert_close(both, dense(generator, symbols[:2], z[2:]))
    assert (again.cached_maps, again.plan_s, again.codebook_s) == (2, 0, 0)
    assert again.distinct_share == first.distinct_share
    mixed, mixed_timings = symbols[[1, 2, 1, 0]], Timings()
    assert_close(program.run(mixed, z, values=True, timings=mixed_timings), dense(generator, mixed, z))
    assert mixed_timings.cached_maps == 3
    assert 0 < mixed_timings.distinct_share < 1


def test_a_plan_that_needs_a_larger_bucket_than_the_last_ones_is_drawn_again(
    emulated: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(height=64, width=64)
    generator = trained_like(config)
    plain, detailed = np.zeros((4, 1, 64, 64), np.uint16), maps(config, 1)
    plain += np.arange(4, dtype=np.uint16)[:, None, None, None]
    detailed[:] = np.random.default_rng(1).integers(0, config.symbols, detailed.shape)
    engine = CudaGenerator(generator, torch.float32, CPU, emulated)
    drawn: list[int] = []
    convs = cuda_program.CudaProgram._run_convs

    def count(program: cuda_program.CudaProgram, codebooks: Codebooks) -> None:
        drawn.append(len(codebooks.entries[-1]))
        convs(program, codebooks)

    monkeypatch.setattr(cuda_program.CudaProgram, "_run_convs", count)
    for symbols in (plain[0], plain[1], detailed, plain[2]):
        assert_close(engine.run(symbols, None, values=True), dense(generator, symbols, None))
    few, all_pixels = 8 * 64, 64 * 64
    assert drawn == [few, few, few, all_pixels, all_pixels]  # the third map twice
    monkeypatch.setattr(cuda_program, "RECENT", 2)
    program = CudaGenerator(generator, torch.float32, CPU, emulated)
    for symbols in (detailed, *plain):
        program.run(symbols, None, values=True)
    assert drawn[-1] == few


def test_the_buckets_used_last_are_kept(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_program, "BUCKETS", 2)
    monkeypatch.setattr(cuda_program, "RECENT", 1)
    program = CudaGenerator(trained_like(small()), torch.float32, CPU, emulated)._program((1, 32, 32))
    assert program.likely() is None
    for size in (8, 12, 8, 16):  # 12 goes
        program.needs(size)
        assert program.bucket().size == size
        assert program.likely() is program.bucket()
    assert list(program._buckets) == [8, 16]


def test_the_cache_keeps_to_its_limit(emulated: Library) -> None:
    config = small()
    generator = trained_like(config)
    program = CudaGenerator(generator, torch.float32, CPU, emulated)
    image = program.run(maps(config, 1), None, values=True)
    program.cache.limit = program.cache.bytes * 3 // 2  # room for one map
    assert program.cache.limit > 0
    for seed in (1, 0):
        timings = Timings()
        again = program.run(maps(config, 1, seed), None, values=True, timings=timings)
        assert timings.cached_maps == 0
        assert 0 < program.cache.bytes <= program.cache.limit
    assert torch.equal(again, image)


def test_a_cache_of_no_bytes_keeps_nothing(emulated: Library) -> None:
    config = small()
    program = CudaGenerator(trained_like(config), torch.float32, CPU, emulated, cache_bytes=0)
    program.run(maps(config, 1), None, values=True)
    timings = Timings()
    program.run(maps(config, 1), None, values=True, timings=timings)
    assert (timings.cached_maps, program.cache.bytes) == (0, 0)


@pytest.mark.parametrize(("side", "n"), [(256, 1), (256, 8), (512, 64), (32, 3)])
def test_buckets_hold_what_they_were_chosen_for(side: int, n: int) -> None:
    sizes = level_sizes(side, side, 5)
    for share in (0.001, 0.05, 0.3, 1.0):
        rows = [max(1, int(share * n * h * w)) for h, w in sizes]
        bucket = bucket_of(rows, sizes, n)
        assert all(count <= room_of(bucket, size, n) for count, size in zip(rows, sizes, strict=True))
    few = [min(n * h * w, n * (h + w)) for h, w in sizes]
    assert bucket_of(few, sizes, n) == 8
    buckets = [bucket_of([0] * 5 + [b * n * side], sizes, n) for b in (8, 9, 12, 13, 17, 25, 32)]
    assert [b for b in buckets if b < side] == [b for b in (8, 12, 12, 16, 24, 32, 32) if b < side]


def test_without_cuda_kernels_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent() -> Library:
        raise CudaError("[cuda] this library was built without CUDA")

    monkeypatch.setattr(engine_module, "installed", absent)
    config = small()
    with caplog.at_level(logging.WARNING):
        found = engine_module._cuda_generator(seeded_generator(config), torch.float16, torch.device("cuda"))
    assert found is None
    assert "runs on PyTorch's operators alone: [cuda] this library was built without CUDA" in caplog.text


def test_fp16_is_for_cuda() -> None:
    with pytest.raises(ValueError, match=r"expected precision fp32 or bf16 but got 'fp16'"):
        engine_module.TorchEngine(seeded_generator(small()), "fp16")
