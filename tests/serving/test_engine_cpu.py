"""The cpu engine gives the dense form's images: every architecture, every ISA, any batch, any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from generators import trained_like

from kernels.isa import ISA_VARIABLE, IsaError, input_dtype, supported_isas
from serving.engines.cpu import program as cpu_program
from serving.engines.cpu.engine import CpuEngine
from serving.engines.reference import TorchEngine
from serving.engines.timings import Timings
from spade_core.config import PRESETS, UPSAMPLINGS, GeneratorConfig, Norm, Upsampling, preset
from spade_core.files.checkpoints import Checkpoint, to_weights
from spade_core.maps.drawn import demo_map
from spade_core.maps.label_maps import read_instance_map, read_label_map, resize_nearest_centred
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed

# Bounds of the error of images in -1..1. bf16 rounds every layer to 8 bits, so its bound is a PSNR.
FLOAT32_TOLERANCE = 1e-4
BF16_PSNR_DB = 30.0

Request = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32] | None, npt.NDArray[np.float32] | None]

pytestmark = pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")


def small(**change: object) -> GeneratorConfig:
    defaults: dict[str, object] = {"label_nc": 6, "height": 64, "width": 64, "nf": 4}
    return replace(preset("coco"), **(defaults | change))  # type: ignore[arg-type]


def request(config: GeneratorConfig, batch: int, seed: int = 0) -> Request:
    """Maps of blocks, of random pixels, and of a single label, in turn."""
    rng = np.random.default_rng(seed)
    h, w = config.height, config.width
    labels = np.empty((batch, h, w), np.uint8)
    for i in range(batch):
        coarse = rng.integers(0, config.label_nc, (h // 16, w // 16)).repeat(16, 0).repeat(16, 1)
        labels[i] = (rng.integers(0, config.label_nc, (h, w)), np.full((h, w), 1), coarse)[(i + 2) % 3]
    instances = (labels // 2).astype(np.int32) if config.instance_edges else None
    style = np.stack([style_from_seed(seed + i) for i in range(batch)]) if config.style else None
    return labels, instances, style


def part(of: Request, items: slice) -> Request:
    labels, instances, style = of
    return labels[items], None if instances is None else instances[items], None if style is None else style[items]


def dense(generator: Generator, of: Request) -> npt.NDArray[np.float32]:
    return TorchEngine(generator, "fp32", "dense").image(*of).numpy()


def assert_close(image: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> None:
    # Values before tanh as well. Below 0.999, float32 resolves them to 3e-5.
    known = np.abs(reference) < 0.999
    before, expected = (np.arctanh(one[known].astype(np.float64)) for one in (image, reference))
    error = max(np.abs(image - reference).max(), np.abs(before - expected).max())
    assert error <= FLOAT32_TOLERANCE, f"max error {error}"
    assert reference.std() > 0.05, "a flat image would agree with anything"


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_at_full_size(name: str) -> None:
    config = replace(preset(name), nf=8)  # the widths of the presets are those of the next test
    generator = trained_like(config)
    labels, instances = demo_map(0, config)
    style = style_from_seed(0)[None] if config.style else None
    of: Request = (labels[None], instances[None] if config.instance_edges else None, style)
    assert_close(CpuEngine(generator).image(*of), dense(generator, of))


@pytest.mark.slow
def test_the_full_width_on_small_maps() -> None:
    config = replace(preset("coco"), height=32, width=64)
    generator, of = trained_like(config), request(config, 1)
    assert_close(CpuEngine(generator).image(*of), dense(generator, of))


@pytest.mark.slow
def test_the_real_maps_at_coco_size(real_maps: Path) -> None:
    config = replace(preset("coco"), nf=8)
    paths = sorted((real_maps / "label").glob("*.png"))[:4]
    labels = np.stack([resize_nearest_centred(read_label_map(p), 256, 256) for p in paths])
    instances = np.stack(
        [resize_nearest_centred(read_instance_map(real_maps / "inst" / p.name), 256, 256) for p in paths]
    )
    generator = trained_like(config)
    image = CpuEngine(generator).image(labels, instances, None)
    expected = TorchEngine(generator, "fp32", "codebook").image(labels, instances, None).numpy()
    assert_close(image, expected)


@pytest.mark.parametrize("norm", ["instance", "batch", "syncbatch"])
@pytest.mark.parametrize("spade_kernel", [1, 3, 5])
@pytest.mark.parametrize("edges", [False, True])
def test_every_norm_and_conv_size(norm: Norm, spade_kernel: int, edges: bool) -> None:
    config = small(norm=norm, spade_kernel=spade_kernel, instance_edges=edges)
    generator, of = trained_like(config), request(config, 3)
    assert_close(CpuEngine(generator).image(*of), dense(generator, of))


@pytest.mark.parametrize("edges", [False, True])
def test_every_uint8_value_can_be_a_class(edges: bool) -> None:
    config = small(label_nc=256, dont_care=False, instance_edges=edges)
    generator, of = trained_like(config), request(config, 2)
    assert 255 in of[0]
    assert_close(CpuEngine(generator).image(*of), dense(generator, of))


@pytest.mark.parametrize("upsampling", ["normal", "more", "most"])
@pytest.mark.parametrize("style", [False, True])
@pytest.mark.parametrize("nf", [4, 6, 20])
def test_every_depth_and_odd_widths_with_and_without_style(upsampling: Upsampling, style: bool, nf: int) -> None:
    height = 2 ** UPSAMPLINGS[upsampling]  # the smallest map: its start map is one row of two columns
    config = small(upsampling=upsampling, style=style, nf=nf, height=height, width=2 * height)
    generator, of = trained_like(config), request(config, 2)
    assert_close(CpuEngine(generator).image(*of), dense(generator, of))


def test_a_start_map_that_is_large_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_program, "LARGE", 1)
    config = small()
    generator, of = trained_like(config), request(config, 3)
    assert_close(CpuEngine(generator).image(*of), dense(generator, of))


@pytest.mark.parametrize("isa", ["avx2", "avx512", "avx512bf16", "amx"])
def test_every_isa_of_this_processor(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if isa not in supported_isas():
        pytest.skip(f"this processor does not run {isa}")
    monkeypatch.setenv(ISA_VARIABLE, isa)
    config = small(nf=20)
    generator, of = trained_like(config), request(config, 3)
    bf16 = input_dtype(isa) == "bf16"  # type: ignore[arg-type]
    engine = CpuEngine(generator, "bf16" if bf16 else "fp32")
    assert engine.isa == isa
    image, expected = engine.image(*of), dense(generator, of)
    if bf16:
        assert 10 * np.log10(4 / np.mean((image - expected) ** 2)) > BF16_PSNR_DB
    else:
        assert_close(image, expected)


needs_amx = pytest.mark.skipif("amx" not in supported_isas(), reason="no AMX here")


@needs_amx
@pytest.mark.parametrize("spade_kernel", [1, 3])
@pytest.mark.parametrize("edges", [False, True])
def test_int8_is_close_to_bf16(spade_kernel: int, edges: bool) -> None:
    """On maps of blocks, the error of int8 is below twice the error of bf16."""
    config = small(nf=20, height=128, width=128, instance_edges=edges, spade_kernel=spade_kernel)
    generator = trained_like(config)
    labels = np.random.default_rng(0).integers(0, 6, (3, 16, 16)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    of = labels, request_instances(config, labels), None
    expected = dense(generator, of)
    errors = {
        precision: float(np.mean((CpuEngine(generator, precision).image(*of) - expected) ** 2))
        for precision in ("bf16", "int8")
    }
    assert errors["int8"] < 4 * errors["bf16"]


@needs_amx
def test_int8_bits_depend_neither_on_threads_nor_on_the_batch() -> None:
    config = small(nf=20)
    generator, of = trained_like(config), request(config, 3)
    together = CpuEngine(generator, "int8", threads=1).image(*of)
    engine = CpuEngine(generator, "int8", threads=3)
    np.testing.assert_array_equal(engine.image(*of), together)
    for i in range(3):
        np.testing.assert_array_equal(engine.image(*part(of, slice(i, i + 1)))[0], together[i])


@needs_amx
def test_activations_that_do_not_fit_float16_are_refused() -> None:
    generator = seeded_generator(small())
    variance = generator.up_3.norm_1.param_free_norm.running_var
    assert isinstance(variance, torch.Tensor)
    variance[0] = 1e9
    with pytest.raises(ValueError, match=r"float16's 65504 on isa amx but .* reach 2.53e\+05; use precision fp32"):
        CpuEngine(generator, "bf16")
    CpuEngine(generator, "fp32")


@needs_amx
def test_precision_auto_on_amx_is_bf16() -> None:
    from serving.engines.choose import make_engine

    config = small()
    engine = make_engine(to_weights(Checkpoint(config, seeded_generator(config), None, {})), "cpu", "auto", 1)
    assert isinstance(engine, CpuEngine)
    assert (engine.isa, engine.precision) == ("amx", "bf16")


def test_int8_without_amx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.engines.choose import make_engine

    if "avx512bf16" not in supported_isas():
        pytest.skip("this processor does not run avx512bf16")
    monkeypatch.setenv(ISA_VARIABLE, "avx512bf16")
    config = small()
    for name in ("cpu", "auto"):
        with pytest.raises(IsaError, match=r"AMX.* for precision int8 but got isa avx512bf16; use bf16"):
            make_engine(to_weights(Checkpoint(config, seeded_generator(config), None, {})), name, "int8", 1)


def test_an_isa_of_another_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "avx512bf16")
    with pytest.raises(IsaError, match=r"ISA of float32 on this processor.* but got 'avx512bf16'"):
        CpuEngine(seeded_generator(small()), "fp32")


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_bits_depend_neither_on_threads_nor_on_the_batch(norm: Norm) -> None:
    config = small(norm=norm, nf=20)
    generator, of = trained_like(config), request(config, 3)
    together = CpuEngine(generator, threads=1).image(*of)
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(CpuEngine(generator, threads=threads).image(*of), together)
    engine = CpuEngine(generator, threads=2)
    for i in range(3):
        np.testing.assert_array_equal(engine.image(*part(of, slice(i, i + 1)))[0], together[i])


def test_pixels_are_the_values_truncated() -> None:
    config = small()
    engine, of = CpuEngine(trained_like(config)), request(config, 2)
    expected = ((engine.image(*of) + 1) * np.float32(127.5)).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(engine.synthesize(*of), expected)


def test_maps_that_come_again_are_not_planned_again_and_give_the_same_image() -> None:
    config = small(style=True)
    engine, of = CpuEngine(trained_like(config)), request(config, 2)
    first = Timings()
    image = engine.image(*of, first)
    assert first.cached_maps == 0
    assert first.codebook_s > 0
    again = Timings()
    np.testing.assert_array_equal(engine.image(*of, again), image)
    assert (again.cached_maps, again.plan_s, again.codebook_s) == (2, 0, 0)
    assert again.distinct_share == first.distinct_share
    mixed = (np.concatenate([of[0][1:], request(config, 1, seed=9)[0]]), None, of[2])
    mixed_timings = Timings()
    out = engine.image(mixed[0], request_instances(config, mixed[0]), mixed[2], mixed_timings)
    assert mixed_timings.cached_maps == 1
    alone = CpuEngine(trained_like(config), cache_bytes=0)
    np.testing.assert_array_equal(out, alone.image(mixed[0], request_instances(config, mixed[0]), mixed[2]))


def request_instances(config: GeneratorConfig, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32] | None:
    return (labels // 2).astype(np.int32) if config.instance_edges else None


def test_styles_of_one_map_share_its_codebooks() -> None:
    config = small(style=True, instance_edges=False)
    labels = request(config, 1)[0].repeat(4, axis=0)
    style = np.stack([style_from_seed(i) for i in range(4)])
    generator, timings = trained_like(config), Timings()
    image = CpuEngine(generator).image(labels, None, style, timings)
    assert_close(image, dense(generator, (labels, None, style)))
    alone = Timings()
    CpuEngine(generator).image(labels[:1], None, style[:1], alone)
    assert timings.distinct_share == alone.distinct_share


def test_the_store_keeps_to_its_limit_and_forgets_what_was_new_longest_ago() -> None:
    config, limit = small(), 16_000_000
    generator = trained_like(config)
    engine, anew = CpuEngine(generator, cache_bytes=limit), CpuEngine(generator, cache_bytes=0)
    coarse = np.random.default_rng(0).integers(0, config.label_nc, (40, 1, 4, 4)).astype(np.uint8)
    maps = coarse.repeat(16, 2).repeat(16, 3)

    def cached(one: npt.NDArray[np.uint8]) -> int:
        timings, of = Timings(), (one, request_instances(config, one), None)
        np.testing.assert_array_equal(engine.image(*of, timings), anew.image(*of))
        return timings.cached_maps

    assert sum(table.nbytes for table in engine._codebooks.store._tables) + engine._codebooks.plans.limit <= limit
    assert not any(cached(one) for one in maps)
    assert [cached(maps[39]), cached(maps[38]), cached(maps[0])] == [1, 1, 0]


def test_calls_from_several_threads_and_engines_side_by_side() -> None:
    config = small(nf=20)
    generator = trained_like(config)
    engines = [CpuEngine(generator, threads=2), CpuEngine(generator, threads=1)]
    requests = [request(config, 2, seed) for seed in range(8)]
    expected = [engines[0].image(*of) for of in requests]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda i: engines[i % 2].image(*requests[i]), range(8)))
    for image, wanted in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image, wanted)


def test_more_shapes_than_are_kept() -> None:
    config = small()
    engine = CpuEngine(trained_like(config))
    of = request(config, 12)
    first = engine.image(*of)
    for n in range(1, 12):
        np.testing.assert_array_equal(engine.image(*part(of, slice(0, n))), first[:n])
    np.testing.assert_array_equal(engine.image(*of), first)


def test_a_bad_label_and_a_bad_precision_are_named() -> None:
    config = small()
    labels, instances, _ = request(config, 1)
    labels[0, 5, 7] = 99
    engine = CpuEngine(trained_like(config))
    with pytest.raises(ValueError, match=r"99 .*row 5, column 7"):
        engine.synthesize(labels, instances, None)
    with pytest.raises(ValueError, match="precision fp32, bf16, int8 but got 'fp8'"):
        CpuEngine(seeded_generator(config), "fp8")


def test_auto_takes_the_native_kernels_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    from serving.engines.choose import make_engine

    config = small()
    weights = to_weights(Checkpoint(config, seeded_generator(config), None, {}))
    with caplog.at_level("INFO"):
        engine = make_engine(weights, "auto", "fp32", 1)
    assert engine.name == "cpu"
    assert "native kernels, isa" in caplog.text
