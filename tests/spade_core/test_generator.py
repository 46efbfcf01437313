"""The generator and the encoder hold the published parameters, and untrained images are neither flat nor saturated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from spade_core.config import PRESETS, GeneratorConfig, preset
from spade_core.files.checkpoints import arrays_of
from spade_core.models.dense import synthesize_dense
from spade_core.models.encode import encode
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator
from spade_core.models.one_hot import one_hot
from spade_core.models.photo_style import style_from_image
from spade_core.models.seeded import seeded_encoder, seeded_generator
from spade_core.models.style import style_from_seed

DEMO = preset("demo")


@pytest.mark.parametrize(("name", "millions"), [("coco", 97.48), ("ade20k", 96.49), ("cityscapes", 93.05)])
def test_parameter_counts_are_the_published_ones(name: str, millions: float) -> None:
    with torch.device("meta"):
        generator = Generator(preset(name))
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 2) == millions


def test_generator_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        keys = set(Generator(preset("coco")).state_dict())
    assert {"fc.weight", "fc.bias", "conv_img.weight", "conv_img.bias"} <= keys
    assert "head_0.norm_0.mlp_shared.0.weight" in keys
    assert "up_3.norm_s.param_free_norm.running_var" in keys
    assert {k for k in keys if k.startswith("up_0.conv")} == {
        "up_0.conv_0.weight", "up_0.conv_0.bias", "up_0.conv_1.weight", "up_0.conv_1.bias", "up_0.conv_s.weight",
    }  # fmt: skip


def test_encoder_keys_and_shapes() -> None:
    state = StyleEncoder(64).state_dict()
    assert set(state) == {f"layer{i}.0.weight" for i in range(1, 7)} | {
        "fc_mu.weight", "fc_mu.bias", "fc_var.weight", "fc_var.bias",
    }  # fmt: skip
    assert state["fc_mu.weight"].shape == (256, 8 * 64 * 4 * 4)


def test_one_hot_puts_classes_first_and_the_edge_last() -> None:
    config = replace(preset("coco"), label_nc=2, dont_care=True)  # classes 0, 1, don't care; then the edge
    segmap = one_hot(torch.tensor([[[0, 3, 4]]]), config, torch.float32)
    assert segmap[0, :, 0].T.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_untrained_images_are_neither_flat_nor_saturated(name: str) -> None:
    full = preset(name)
    config = replace(full, height=full.height // 4, width=full.width // 4)  # the width of the network is the subject
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, config.symbols, (1, config.height // 8, config.width // 8)).repeat(8, 1).repeat(8, 2)
    style = torch.from_numpy(style_from_seed(0))[None] if config.style else None
    with torch.inference_mode():
        image = torch.tanh(synthesize_dense(seeded_generator(config), torch.from_numpy(blocks), style))
    assert image.std() > 0.2
    assert (image.abs() > 0.99).float().mean() < 0.05


def test_seeded_weights_repeat_and_differ_by_seed() -> None:
    config = replace(preset("demo"), nf=4)
    first, again, other = (seeded_generator(config, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_style_from_seed_is_standard_normal_and_repeats() -> None:
    style = style_from_seed(7)
    assert style.shape == (256,)
    assert style.dtype == np.float32
    assert np.array_equal(style, style_from_seed(7))
    assert not np.array_equal(style, style_from_seed(8))
    many = np.stack([style_from_seed(i) for i in range(200)])
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed of 0 or more but got -1"):
        style_from_seed(-1)


def test_style_from_image_is_the_mean_or_a_sample_and_depends_on_the_image() -> None:
    encoder = seeded_encoder(4)
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 60, (90, 120, 3), np.uint8), rng.integers(0, 255, (256, 256, 3), np.uint8)
    mean = style_from_image(arrays_of(encoder), dark, DEMO)
    assert mean.shape == (256,)
    assert np.array_equal(mean, style_from_image(arrays_of(encoder), dark, DEMO))
    assert not np.allclose(mean, style_from_image(arrays_of(encoder), bright, DEMO), atol=0.1)
    sample = style_from_image(arrays_of(encoder), dark, DEMO, seed=1)
    with torch.inference_mode():
        small = np.asarray(Image.fromarray(dark).resize((256, 256), Image.Resampling.BICUBIC))
        pixels = torch.from_numpy(small.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        _, log_variance = encoder(pixels)
    expected = mean + np.exp(log_variance[0].numpy() / 2) * style_from_seed(1)
    assert np.allclose(sample, expected, atol=1e-5)


@pytest.mark.parametrize("config", [DEMO, replace(DEMO, height=128, width=256)], ids=["256x256", "128x256"])
def test_the_style_of_a_large_photo_is_that_of_its_bicubic_reduction(config: GeneratorConfig) -> None:
    """The encoder never sees grain that the reduction averages away."""
    encoder, rng = seeded_encoder(4), np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((1024, 1024), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 60, (1024, 1024, 3))
    photo = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(photo).resize((config.width, config.height), Image.Resampling.BICUBIC))
    style, of_small = (
        style_from_image(arrays_of(encoder), photo, config),
        style_from_image(arrays_of(encoder), small, config),
    )
    np.testing.assert_array_equal(style, of_small)
    with torch.inference_mode():
        unfiltered = encoder(torch.from_numpy(photo.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None])[0][0]
    assert np.linalg.norm(unfiltered.numpy() - style) > 0.2 * np.linalg.norm(style), "grain changes a style"


@pytest.mark.parametrize("size", [(256, 256), (128, 300)])
def test_the_encoder_in_numpy_is_that_of_pytorch(size: tuple[int, int]) -> None:
    """Against the network in float64, within the rounding errors of float32 sums, layer by layer."""
    encoder = seeded_encoder(4)
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, *size)).astype(np.float32)
    got = encode(arrays_of(encoder), pixels)
    with torch.inference_mode():
        expected = encoder.double()(torch.from_numpy(pixels).double()[None])
    longest = encoder.fc_mu.in_features  # terms of a sum
    for one, other in zip(got, expected, strict=True):
        limit = 2.0**-24 * np.sqrt(longest) * 7 * 8  # seven layers, eight standard deviations
        assert np.abs(one - other[0].numpy()).max() < limit


def test_style_from_floats_is_refused() -> None:
    with pytest.raises(ValueError, match="of dtype uint8 but got float32"):
        style_from_image(arrays_of(seeded_encoder(4)), np.zeros((8, 8, 3), np.float32), DEMO)  # type: ignore[arg-type]


def test_style_from_a_grey_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RGB image \[H, W, 3\] but got shape \(8, 8\)"):
        style_from_image(arrays_of(seeded_encoder(4)), np.zeros((8, 8), np.uint8), DEMO)
