"""The discriminator has the published keys, shapes and sums, and lets fake and real share a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spade_core.config import preset
from spade_core.models.discriminator import Discriminator
from spade_core.models.label_patches import label_patches
from spade_core.models.one_hot import one_hot
from spade_core.models.spectral import with_spectral_norm

# Float32 sums of at most 16 * 16 products, normalised, through five layers.
TOLERANCE = 1e-5


def test_keys_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = with_spectral_norm(Discriminator(184)).state_dict()
    expected = {}
    for i in (0, 1):
        at = f"discriminator_{i}"
        expected |= {f"{at}.model0.0.weight": (64, 187, 4, 4), f"{at}.model0.0.bias": (64,)}
        for n, (fin, fout) in enumerate([(64, 128), (128, 256), (256, 512)], start=1):
            expected[f"{at}.model{n}.0.0.weight_orig"] = (fout, fin, 4, 4)
            expected |= {f"{at}.model{n}.0.0.weight_u": (fout,), f"{at}.model{n}.0.0.weight_v": (fin * 16,)}
        expected |= {f"{at}.model4.0.weight": (1, 512, 4, 4), f"{at}.model4.0.bias": (1,)}
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected


def test_outputs_equal_the_formula() -> None:
    torch.manual_seed(0)
    network = Discriminator(2, ndf=2)
    state, x = network.state_dict(), torch.randn(1, 5, 40, 48)
    outputs = network(x)
    for i, scale in enumerate(outputs):
        if i == 1:
            ones = torch.ones(1, 1, 40, 48)
            kernel = torch.ones(5, 1, 3, 3)
            x = F.conv2d(x, kernel, stride=2, padding=1, groups=5) / F.conv2d(ones, kernel[:1], stride=2, padding=1)
        y = x
        for n, stride in enumerate([2, 2, 2, 1, 1]):
            name = f"discriminator_{i}.model{n}.0" + (".0" if n in (1, 2, 3) else "")
            y = F.conv2d(y, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=stride, padding=2)
            if n in (1, 2, 3):
                mean, var = y.mean((2, 3), keepdim=True), y.var((2, 3), unbiased=False, keepdim=True)
                y = (y - mean) / (var + 1e-5).sqrt()
            if n < 4:
                y = torch.where(y > 0, y, 0.2 * y)
            assert scale[n].shape == y.shape
            assert (scale[n] - y).abs().max() <= TOLERANCE
        assert len(scale) == 5


def test_an_image_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    network, x = Discriminator(2, ndf=2), torch.randn(3, 5, 32, 32)
    together, alone = network(x), network(x[1:2])
    for scales in zip(together, alone, strict=True):
        for many, one in zip(*scales, strict=True):
            assert (many[1:2] - one).abs().max() <= TOLERANCE


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("size", [(32, 48), (33, 41)])
@pytest.mark.parametrize("scales", [1, 2, 3])
def test_labels_by_lookup_equal_a_conv_on_the_one_hot_map(edges: bool, size: tuple[int, int], scales: int) -> None:
    torch.manual_seed(0)
    config = replace(preset("coco"), label_nc=5, instance_edges=edges)
    network = Discriminator(config.semantic_nc, ndf=2, scales=scales, layers=2).double()
    symbols = np.random.default_rng(0).integers(0, config.symbols, (2, *size), np.uint16)
    symbols[:, :, 16:] = 3  # repeats many patches
    maps = torch.from_numpy(symbols.astype(np.int32))
    image = torch.randn(2, 3, *size, dtype=torch.float64).requires_grad_()
    found = []
    for by_lookup in (False, True):
        if by_lookup:
            patches = label_patches(symbols, config.symbols)
            assert len(patches.patches) < patches.index.numel() / 1.5
            outputs = network.judge(network.label_features(maps, patches, config), image)
        else:
            outputs = network(torch.cat([one_hot(maps, config, torch.float64), image], dim=1))
        flat = torch.cat([layer.flatten() for scale in outputs for layer in scale])
        weights = torch.linspace(-1, 1, flat.numel(), dtype=torch.float64)
        found.append((flat, *torch.autograd.grad((flat * weights).sum(), [image, *network.parameters()])))
    # The halved one-hot map holds shares of a ninth in float32.
    for expected, ours in zip(*found, strict=True):
        assert (ours - expected).abs().max() <= 1e-6 * expected.abs().max().clamp(min=1)
