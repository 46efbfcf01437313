"""The dense and the codebook form are the same function, image and gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from kernels.ops.plan import plan
from spade_core.codebook import entries as codebook_module
from spade_core.codebook import modulate as modulate_module
from spade_core.codebook.entries import LevelTensors, codebook, level_tensors
from spade_core.codebook.fold import fold, fold_generator
from spade_core.codebook.modulate import modulate
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import PRESETS, GeneratorConfig, Norm, Upsampling, preset
from spade_core.maps.label_maps import prepare, read_instance_map, read_label_map, resize_nearest_centred
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from spade_core.models.spade import SPADE
from spade_core.models.style import style_from_seed

Symbols = npt.NDArray[np.uint16]

# The largest difference of the two forms before tanh, in float32, relative to the largest value.
TOLERANCE = 1e-4
# Width of a preset's generator where the size of the image is the subject.
NARROW = 4


def small(**change: object) -> GeneratorConfig:
    defaults: dict[str, object] = {"label_nc": 6, "height": 64, "width": 64, "nf": 4}
    return replace(preset("coco"), **(defaults | change))  # type: ignore[arg-type]


def with_statistics(generator: Generator, seed: int = 1) -> Generator:
    """Set running statistics and biases to random values, as after training, in place of 0 and 1."""
    random = torch.Generator().manual_seed(seed)
    for name, tensor in generator.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.2, generator=random)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=random)
        elif name.endswith("bias"):
            tensor.normal_(0, 0.1, generator=random)
    return generator


def codebook_form(generator: Generator, symbols: Symbols, style: Tensor | None) -> Tensor:
    config = generator.config
    sizes = [(symbols.shape[1] >> i, symbols.shape[2] >> i) for i in range(config.upsamplings + 1)]
    levels = level_tensors(plan(symbols, sizes, config.symbols, config.spade_kernel), torch.device("cpu"))
    as_tensor = torch.from_numpy(symbols.astype(np.int32))
    return synthesize_codebook(generator, fold_generator(generator), as_tensor, levels, style)


def both_forms(generator: Generator, symbols: Symbols) -> tuple[Tensor, Tensor]:
    style = None
    if generator.config.style:
        style = torch.from_numpy(np.stack([style_from_seed(i) for i in range(len(symbols))]))
    dense = synthesize_dense(generator, torch.from_numpy(symbols.astype(np.int32)), style)
    return dense, codebook_form(generator, symbols, style)


def assert_agree(dense: Tensor, codebook: Tensor) -> None:
    error = (dense - codebook).abs().max().item()
    assert error <= TOLERANCE, f"max error {error}"
    assert dense.std() > 0.1, "a flat image would agree with anything"


def mixed_maps(config: GeneratorConfig, height: int, width: int) -> Symbols:
    """Four maps: random pixels, a single symbol, neighbours that all differ, and blocks."""
    rng = np.random.default_rng(5)
    n = config.symbols
    noise = rng.integers(0, n, (height, width))
    one = np.full((height, width), n - 1)
    rows, columns = np.indices((height, width))
    differing = (rows * 7 + columns) % n
    blocks = rng.integers(0, n, (height // 16, width // 16)).repeat(16, 0).repeat(16, 1)
    return np.stack([noise, one, differing, blocks]).astype(np.uint16)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_forms_agree_at_half_size_on_mixed_maps_in_one_batch(name: str) -> None:
    """Noise makes every patch distinct, which costs gigabytes at full size."""
    full = preset(name)
    config = replace(full, nf=NARROW, height=full.height // 2, width=full.width // 2)
    generator = with_statistics(seeded_generator(config))
    assert_agree(*both_forms(generator, mixed_maps(config, config.height, config.width)))


@pytest.mark.slow
def test_forms_agree_at_full_width_on_mixed_maps() -> None:
    config = replace(preset("coco"), height=64, width=64)
    generator = with_statistics(seeded_generator(config))
    assert_agree(*both_forms(generator, mixed_maps(config, 64, 64)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_forms_agree_at_full_size_on_the_real_maps(name: str, real_maps: Path) -> None:
    config = replace(preset(name), nf=NARROW)
    generator = with_statistics(seeded_generator(config))
    size, paths = (config.height, config.width), sorted((real_maps / "label").glob("*.png"))
    if name != "coco":
        paths = paths[:2]  # the maps are COCO's: a second look at all of them says little
    instances = None
    labels = np.stack([resize_nearest_centred(read_label_map(p), *size) for p in paths])
    if config.instance_edges:
        instances = np.stack(
            [resize_nearest_centred(read_instance_map(real_maps / "inst" / p.name), *size) for p in paths]
        )
    if config.label_nc != 182:  # the maps are COCO's: fold their ids into the preset's
        labels = labels % config.label_nc
    symbols = prepare(labels, instances, config)
    for batch in np.array_split(symbols, 2):
        assert_agree(*both_forms(generator, batch))


@pytest.mark.parametrize("norm", ["instance", "batch", "syncbatch"])
@pytest.mark.parametrize("spade_kernel", [1, 3, 5])
@pytest.mark.parametrize("edges", [False, True])
def test_forms_agree_for_every_norm_and_conv_size(norm: Norm, spade_kernel: int, edges: bool) -> None:
    config = small(norm=norm, spade_kernel=spade_kernel, instance_edges=edges)
    assert_agree(*both_forms(with_statistics(seeded_generator(config)), mixed_maps(config, 64, 64)))


@pytest.mark.parametrize("upsampling", ["normal", "more", "most"])
@pytest.mark.parametrize("style", [False, True])
def test_forms_agree_for_every_depth_with_and_without_style(upsampling: Upsampling, style: bool) -> None:
    config = small(upsampling=upsampling, style=style, height=128, width=256)
    assert_agree(*both_forms(with_statistics(seeded_generator(config)), mixed_maps(config, 128, 256)))


def test_forms_agree_at_another_size_than_the_configured_one() -> None:
    config = small()
    assert_agree(*both_forms(with_statistics(seeded_generator(config)), mixed_maps(config, 96, 160)))


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_an_image_does_not_depend_on_its_batch(norm: Norm) -> None:
    config = small(norm=norm)
    generator, maps = with_statistics(seeded_generator(config)), mixed_maps(config, 64, 64)
    together = codebook_form(generator, maps, None)
    for i in range(len(maps)):
        alone = codebook_form(generator, maps[i : i + 1], None)
        assert (alone - together[i : i + 1]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_gradients_of_both_forms_agree_in_double_precision(norm: Norm, training: bool) -> None:
    config = small(norm=norm, instance_edges=True)
    generator = with_statistics(seeded_generator(config)).double().train(training)
    gradients = []
    with torch.enable_grad():
        for image in both_forms(generator, mixed_maps(config, 64, 64)):
            generator.zero_grad()
            (image * torch.linspace(-1, 1, image.numel(), dtype=torch.float64).view(image.shape)).sum().backward()
            gradients.append({name: p.grad for name, p in generator.named_parameters()})
    for name, dense in gradients[0].items():
        codebook = gradients[1][name]
        assert dense is not None
        assert codebook is not None
        assert (dense - codebook).abs().max() <= 1e-10 * dense.abs().max().clamp(min=1), name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("spade_kernel", [1, 3, 5])
def test_products_per_tap_are_the_products_of_whole_windows(
    monkeypatch: pytest.MonkeyPatch, spade_kernel: int, training: bool
) -> None:
    config = small(spade_kernel=spade_kernel)
    spade = with_statistics(seeded_generator(config)).double().up_0.norm_0.train(training)
    symbols = mixed_maps(config, 64, 64)
    (level,) = level_tensors(plan(symbols, [(64, 64)], config.symbols, spade_kernel), torch.device("cpu")).values()
    entries, gradients = [], []
    for share in (0.0, float("inf")):  # always per tap, never
        monkeypatch.setattr(codebook_module, "PER_TAP", share)
        with torch.enable_grad():
            entries.append(codebook(fold(spade, config), level))
            weights = torch.linspace(-1, 1, entries[-1].numel(), dtype=torch.float64).view_as(entries[-1])
            gradients.append(torch.autograd.grad((entries[-1] * weights).sum(), list(spade.parameters())))
    assert (entries[0] - entries[1]).abs().max() <= 1e-12 * entries[1].abs().max()
    for per_tap, whole in zip(*gradients, strict=True):
        assert (per_tap - whole).abs().max() <= 1e-12 * whole.abs().max()


def test_modulate_has_the_gradient_of_its_formula() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=random).requires_grad_()
    entries = torch.randn(7, 6, dtype=torch.float64, generator=random).requires_grad_()
    index = torch.randint(0, 7, (2, 4, 5), generator=random, dtype=torch.int32)
    with torch.enable_grad():
        assert torch.autograd.gradcheck(lambda a, b: modulate(a, b, index, None), (x, entries))


@pytest.mark.parametrize("values", [1, 1 << 17])
def test_modulate_with_batch_norm_is_the_norm_then_the_formula(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    monkeypatch.setattr(modulate_module, "SLICE", values)  # a pixel at a time, all at once
    random = torch.Generator().manual_seed(0)
    x = (3 + torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=random)).requires_grad_()
    entries = torch.randn(7, 6, dtype=torch.float64, generator=random).requires_grad_()
    index = torch.randint(0, 7, (2, 4, 5), generator=random, dtype=torch.int32)
    ours, reference = (torch.nn.BatchNorm2d(3, affine=False).double() for _ in range(2))
    with torch.enable_grad():
        assert torch.autograd.gradcheck(lambda a, b: modulate(a, b, index, ours), (x, entries))
        reference(x)
        a, b = entries[index.long()].permute(0, 3, 1, 2).chunk(2, dim=1)
        expected = a * reference(x) + b
    ours.reset_running_stats()
    with torch.enable_grad():
        for _ in range(2):
            found = modulate(x, entries, index, ours)
    torch.testing.assert_close(found, expected)
    for key, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor, msg=key)


def test_an_entry_of_many_pixels_has_its_whole_gradient_in_bfloat16() -> None:
    x = torch.ones(1, 2, 64, 64, dtype=torch.bfloat16)
    entries = torch.zeros(1, 4, dtype=torch.bfloat16, requires_grad=True)
    with torch.enable_grad():
        modulate(x, entries, torch.zeros(1, 64, 64, dtype=torch.int32), None).sum().backward()
    assert entries.grad is not None
    assert entries.grad.tolist() == [[4096.0] * 4], "a running sum of ones stays at 256 in bfloat16"


@pytest.mark.parametrize("rows", [1, 255, 256, 257])
def test_padding_rows_of_a_product_change_no_entry(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codebook_module, "PER_TAP", float("inf"))
    config = replace(preset("demo"), nf=2)
    norm = next(m for m in seeded_generator(config).modules() if isinstance(m, SPADE)).double()
    random = torch.Generator().manual_seed(0)
    patches3 = torch.randint(0, config.symbols + 1, (40, 9), generator=random, dtype=torch.int32)
    patches5 = torch.randint(0, 41, (rows, 9), generator=random, dtype=torch.int32)
    level = LevelTensors(patches3, patches5, torch.zeros(1, 1, 1, dtype=torch.int32))
    found = []
    for step in (1, 256):
        monkeypatch.setattr(codebook_module, "ROW_STEP", step)
        with torch.enable_grad():
            entries = codebook(fold(norm, config), level)
            gradients = torch.autograd.grad((entries.cos() * 3).sum(), list(norm.parameters()), allow_unused=True)
        found.append([entries, *(g for g in gradients if g is not None)])
    assert len(found[0][0]) == rows
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-10, atol=1e-12)
