"""Spectral norm is on the paper's convs, under the published keys, and folds to the same network."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spade_core.config import preset
from spade_core.files.convert import convert
from spade_core.models.dense import synthesize_dense
from spade_core.models.discriminator import Discriminator
from spade_core.models.encoder import StyleEncoder
from spade_core.models.generator import Generator
from spade_core.models.spectral import folded_state, with_spectral_norm

CONFIG = replace(preset("coco"), label_nc=5, height=32, width=32, nf=2)
# Float32 sums of at most 32 * 9 products in two networks that differ in the order of one scaling.
TOLERANCE = 1e-5


def stems(module: nn.Module) -> set[str]:
    return {key.removesuffix(".weight_orig") for key in module.state_dict() if key.endswith(".weight_orig")}


def test_generator_has_spectral_norm_on_the_convs_of_its_blocks_only() -> None:
    found = stems(with_spectral_norm(Generator(CONFIG)))
    blocks = ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3")
    narrowing = {f"{block}.conv_s" for block in blocks[3:]}
    assert found == {f"{block}.conv_{i}" for block in blocks for i in (0, 1)} | narrowing


def test_encoder_has_spectral_norm_on_every_conv() -> None:
    assert stems(with_spectral_norm(StyleEncoder(2))) == {f"layer{i}.0" for i in range(1, 7)}


def test_discriminator_has_spectral_norm_between_the_first_and_the_last_conv() -> None:
    found = stems(with_spectral_norm(Discriminator(3, ndf=2)))
    assert found == {f"discriminator_{i}.model{n}.0.0" for i in (0, 1) for n in (1, 2, 3)}


def test_adding_spectral_norm_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="expected StyleEncoder without spectral norm but got one that has it"):
        with_spectral_norm(with_spectral_norm(StyleEncoder(2)))


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 3, bias=False), nn.ConvTranspose2d(4, 4, 3, bias=False)])
def test_folded_weight_has_largest_singular_value_one(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(4, conv.in_channels * 9), full_matrices=False)
    matrix = (
        left * torch.tensor([3.0, 2.0, 1.0, 0.5]) @ right
    )  # [out, in * 9], one singular value larger than the others
    weight = matrix.view(4, conv.in_channels, 3, 3)
    with torch.no_grad():
        conv.weight.copy_(weight.transpose(0, 1) if isinstance(conv, nn.ConvTranspose2d) else weight)
    module = with_spectral_norm(nn.Sequential(conv, nn.InstanceNorm2d(4)))
    with torch.no_grad():
        for _ in range(100):  # the power iteration converges
            module(torch.randn(1, conv.in_channels, 8, 8))
    weight = folded_state(module)["0.weight"]
    if isinstance(conv, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    largest = np.linalg.svd(weight.flatten(1).numpy(), compute_uv=False)[0]
    assert abs(largest - 1) <= TOLERANCE


def test_folded_generator_draws_what_the_trained_one_draws() -> None:
    torch.manual_seed(0)
    generator = with_spectral_norm(Generator(CONFIG))
    symbols = torch.randint(0, CONFIG.symbols, (2, 32, 32))
    with torch.no_grad():
        synthesize_dense(generator.train(), symbols, None)
        plain = Generator(CONFIG)
        plain.load_state_dict(folded_state(generator))
        expected = synthesize_dense(generator.eval(), symbols, None)
        error = (synthesize_dense(plain.eval(), symbols, None) - expected).abs().max()
    assert expected.std() > 0
    assert error <= TOLERANCE


def test_a_trained_state_dict_is_a_published_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """`spade convert` reads a trained state dict like a published file, and folds both the same way."""
    torch.manual_seed(0)
    config = replace(preset("coco"), nf=2)
    generator = with_spectral_norm(Generator(config)).train()
    with torch.no_grad():
        synthesize_dense(generator, torch.randint(0, config.symbols, (1, 64, 64)), None)
    torch.save(generator.state_dict(), tmp_path / "latest_net_G.pth")
    report = convert(tmp_path / "latest_net_G.pth", None, tmp_path / "out.safetensors")
    assert set(report.folded) == {f"{stem}.weight" for stem in stems(generator)}


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 3, bias=False), nn.ConvTranspose2d(4, 3, 4, bias=False)])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_weights_vectors_and_gradients_equal_pytorchs_spectral_norm(
    conv: nn.Conv2d | nn.ConvTranspose2d, form: torch.memory_format
) -> None:
    torch.manual_seed(0)
    reference = nn.utils.spectral_norm(deepcopy(conv).double(), eps=1e-12)
    ours = with_spectral_norm(nn.Sequential(deepcopy(conv).double(), nn.InstanceNorm2d(4)))[0]
    assert isinstance(ours, nn.Conv2d | nn.ConvTranspose2d)
    ours.load_state_dict(reference.state_dict())
    ours.to(memory_format=form)  # type: ignore[call-overload]
    x = torch.randn(2, conv.in_channels, 8, 8, dtype=torch.float64)
    for module in (reference, ours):  # two forward passes that move u and v, then one that does not
        loss = torch.zeros((), dtype=torch.float64)
        for training in (True, True, False):
            loss = loss + module.train(training)(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
    for key, expected in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], expected, msg=key)
    torch.testing.assert_close(ours.weight_orig.grad, reference.weight_orig.grad)
    assert not hasattr(ours, "weight"), "made for a pass, and gone after it"
