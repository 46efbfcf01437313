"""The torch engine: forms and precisions agree, bad input is named, pixels are truncated as in the published models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from serving.engines.choose import load_engine, make_engine
from serving.engines.reference import Form, TorchEngine
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig, preset
from spade_core.files.checkpoints import Checkpoint, save, to_weights
from spade_core.maps.drawn import demo_map
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed

# bf16 keeps 8 bits in every layer. For comparison: the image of another style has a PSNR near 10 dB.
BF16_PSNR_DB = 30.0

DEMO = replace(preset("demo"), nf=4)


def engine(config: GeneratorConfig = DEMO, form: Form = "codebook", precision: str = "fp32") -> TorchEngine:
    return TorchEngine(seeded_generator(config), precision, form)  # type: ignore[arg-type]


def maps(count: int, config: GeneratorConfig = DEMO) -> npt.NDArray[np.uint8]:
    return np.stack([demo_map(seed, config)[0] for seed in range(count)])


def styles(count: int) -> npt.NDArray[np.float32]:
    return np.stack([style_from_seed(seed) for seed in range(count)])


def test_codebook_and_dense_give_the_same_image() -> None:
    codebook = engine().image(maps(3), None, styles(3))
    dense = engine(form="dense").image(maps(3), None, styles(3))
    assert (codebook - dense).abs().max() <= 1e-4
    assert codebook.std() > 0.1


@pytest.mark.parametrize("form", ["codebook", "dense"])
def test_bf16_is_close_to_float32(form: Form) -> None:
    small = replace(DEMO, height=64, width=64)  # PyTorch's bf16 convs are slow on a processor without bf16
    exact = engine(small).image(maps(2, small), None, styles(2))
    rounded = engine(small, form, "bf16").image(maps(2, small), None, styles(2))
    psnr = 10 * np.log10(4 / (exact - rounded).square().mean().item())
    assert psnr > BF16_PSNR_DB


def test_images_are_rgb_truncated_to_bytes() -> None:
    one = engine()
    images = one.synthesize(maps(1), None, styles(1))
    exact = one.image(maps(1), None, styles(1)).permute(0, 2, 3, 1).numpy()
    assert images.shape == (1, 256, 256, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, ((exact + 1) * np.float32(127.5)).astype(np.uint8))


def test_the_style_changes_the_image_and_the_same_style_repeats_it() -> None:
    one, labels = engine(), maps(1)
    first = one.synthesize(labels, None, styles(1))
    np.testing.assert_array_equal(first, one.synthesize(labels, None, styles(1)))
    other = one.synthesize(labels, None, style_from_seed(9)[None])
    assert np.abs(first.astype(int) - other.astype(int)).mean() > 2


def test_instance_edges_reach_the_image() -> None:
    config = replace(preset("coco"), nf=4, height=64, width=64)
    labels = np.zeros((1, 64, 64), np.uint8)
    flat, split = np.zeros((1, 64, 64), np.int32), np.zeros((1, 64, 64), np.int32)
    split[:, :, 32:] = 1
    one = engine(config)
    difference = np.abs(
        one.synthesize(labels, flat, None).astype(int) - one.synthesize(labels, split, None).astype(int)
    )
    assert difference.max() > 10


def test_timings_add_up_to_the_call_and_tell_the_share_of_distinct_patches() -> None:
    timings = Timings()
    engine().synthesize(maps(1), None, styles(1), timings)
    assert timings.plan_s > 0
    assert timings.codebook_s > 0
    assert timings.convs_s > 0
    assert 0 < timings.distinct_share < 0.5
    dense = Timings()
    engine(form="dense").synthesize(maps(1), None, styles(1), dense)
    assert (dense.plan_s, dense.codebook_s, dense.distinct_share) == (0, 0, 1)


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (None, r"expected a style \[1, 256\] but got none"),
        (np.zeros((2, 256), np.float32), r"of shape \[1, 256\] but got \[2, 256\]"),
        (np.full((1, 256), np.nan, np.float32), "finite style but got nan at item 0, entry 0"),
    ],
)
def test_a_bad_style_is_named(style: npt.NDArray[np.float32] | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        engine().synthesize(maps(1), None, style)


def test_a_style_for_a_model_without_one_is_refused() -> None:
    config = replace(DEMO, style=False)
    with pytest.raises(ValueError, match="expected no style, since model 'demo' has no style input"):
        engine(config).synthesize(maps(1), None, styles(1))


def test_a_bad_label_is_named_with_its_place() -> None:
    labels = maps(1)
    labels[0, 5, 7] = 99
    with pytest.raises(ValueError, match=r"99 .*row 5, column 7"):
        engine().synthesize(labels, None, styles(1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"precision": "fp8"}, "precision fp32 or bf16 but got 'fp8'"),
        ({"form": "sparse"}, "form codebook or dense but got 'sparse'"),
        ({"threads": 0}, "threads of 1 or more but got 0"),
    ],
)
def test_bad_engine_arguments_are_named(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TorchEngine(seeded_generator(DEMO), **change)  # type: ignore[arg-type]


def test_an_engine_asked_for_by_name_and_unknown_is_refused() -> None:
    weights = to_weights(Checkpoint(DEMO, seeded_generator(DEMO), None, {}))
    with pytest.raises(ValueError, match=r"engine out of auto, torch, cpu but got 'tensorrt'"):
        make_engine(weights, "tensorrt", "fp32", None)


def test_networks_in_place_of_weights_are_refused_by_name() -> None:
    checkpoint = Checkpoint(DEMO, seeded_generator(DEMO), None, {})
    with pytest.raises(TypeError, match=r"expected the Weights of a checkpoint but got Checkpoint; give .*to_weights"):
        make_engine(checkpoint, "torch", "fp32", None)  # type: ignore[arg-type]


def test_an_engine_runs_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    generator = seeded_generator(DEMO, seed=5)
    save(tmp_path / "five.safetensors", generator)
    loaded = load_engine("torch", tmp_path / "five.safetensors", precision="fp32")
    assert loaded.config == DEMO
    expected = TorchEngine(generator).synthesize(maps(1), None, styles(1))
    np.testing.assert_array_equal(loaded.synthesize(maps(1), None, styles(1)), expected)


def test_seeded_weights_are_said_to_be_untrained(caplog: pytest.LogCaptureFixture) -> None:
    load_engine(preset="demo")
    assert "UNTRAINED" in caplog.text
