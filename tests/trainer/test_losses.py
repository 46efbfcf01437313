"""Every loss against its formula, written a second time in NumPy or with the layers of torchvision's VGG19."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from spade_core.losses import (
    GAN_MODES,
    GanMode,
    LossError,
    LossWeights,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_loss,
    objective,
    perceptual_loss,
    r1_penalty,
    split_fake_real,
)
from trainer.perceptual import PerceptualLoss, load_perceptual
from trainer.scenes.scene import scene

# Float32 means of a few hundred numbers near 1.
TOLERANCE = 1e-6

Array = npt.NDArray[np.float64]


def outputs(seed: int) -> list[list[Tensor]]:
    random = torch.Generator().manual_seed(seed)
    sizes = [[(4, 9), (8, 5), (1, 6)], [(4, 5), (8, 3), (1, 4)]]
    return [[torch.randn(2, c, s, s, generator=random) for c, s in scale] for scale in sizes]


def scores(found: list[list[Tensor]]) -> list[Array]:
    return [scale[-1].double().numpy() for scale in found]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def expected_discriminator(mode: GanMode, real: Array, fake: Array) -> float:
    terms = {
        "hinge": np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
        "least-squares": ((real - 1) ** 2).mean() + (fake**2).mean(),
        "original": -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean(),
        "wasserstein": fake.mean() - real.mean(),
    }
    return float(terms[mode])


def expected_generator(mode: GanMode, fake: Array) -> float:
    terms = {
        "hinge": -fake.mean(),
        "least-squares": ((fake - 1) ** 2).mean(),
        "original": -np.log(sigmoid(fake)).mean(),
        "wasserstein": -fake.mean(),
    }
    return float(terms[mode])


@pytest.mark.parametrize("mode", GAN_MODES)
def test_gan_losses_are_means_over_patches_then_scales(mode: GanMode) -> None:
    real, fake = outputs(0), outputs(1)
    wanted = [expected_discriminator(mode, r, f) for r, f in zip(scores(real), scores(fake), strict=True)]
    assert abs(discriminator_loss(real, fake, mode).item() - np.mean(wanted)) <= TOLERANCE
    wanted = [expected_generator(mode, f) for f in scores(fake)]
    assert abs(generator_loss(fake, mode).item() - np.mean(wanted)) <= TOLERANCE


def test_original_loss_is_finite_for_scores_of_any_size() -> None:
    far = [[torch.full((1, 1, 2, 2), 1e4)]]
    assert discriminator_loss(far, far, "original").item() == 1e4


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(LossError, match="hinge, least-squares, original, wasserstein but got 'gan'"):
        generator_loss(outputs(0), "gan")  # type: ignore[arg-type]


def test_feature_matching_is_l1_without_the_scores_and_teaches_the_fake_only() -> None:
    real, fake = outputs(0), outputs(1)
    for scale in (*real, *fake):
        for layer in scale:
            layer.requires_grad_()
    loss = feature_matching_loss(real, fake)
    per_scale = [
        sum(
            float(np.abs(f.detach().numpy() - r.detach().numpy()).mean()) for r, f in zip(rs[:-1], fs[:-1], strict=True)
        )
        for rs, fs in zip(real, fake, strict=True)
    ]
    assert abs(loss.item() - np.mean(per_scale)) <= TOLERANCE
    loss.backward()
    assert all(layer.grad is None for scale in real for layer in scale)
    assert all(layer.grad is not None for scale in fake for layer in scale[:-1])


def test_kl_is_the_divergence_of_two_normals_summed_over_the_batch() -> None:
    mean, log_variance = torch.tensor([[0.5, -1.0], [0.0, 2.0]]), torch.tensor([[0.3, -0.2], [0.0, 0.1]])
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    wanted = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).sum()
    assert abs(kl_loss(mean, log_variance) - wanted) <= TOLERANCE
    assert kl_loss(torch.zeros(3, 256), torch.zeros(3, 256)) == 0


def test_the_objective_weighs_every_loss_as_the_paper_does() -> None:
    names = ("gan", "feature_matching", "perceptual", "kl", "pixel")
    losses = {name: torch.tensor(value) for name, value in zip(names, (2.0, 3.0, 5.0, 7.0, 11.0), strict=True)}
    total, terms = objective(losses)
    assert terms == pytest.approx({"gan": 2.0, "feature_matching": 30.0, "perceptual": 50.0, "kl": 0.35, "pixel": 0.0})
    assert float(total) == pytest.approx(2 + 10 * 3 + 10 * 5 + 0.05 * 7)
    total, terms = objective({"gan": losses["gan"], "pixel": losses["pixel"]}, LossWeights(pixel=3.0))
    assert (float(total), float(terms["pixel"])) == pytest.approx((2 + 3 * 11, 33.0))


def test_an_unknown_loss_has_no_weight() -> None:
    with pytest.raises(KeyError, match="style"):
        objective({"style": torch.zeros(())})


def test_perceptual_loss_is_a_weighted_sum_of_mean_differences() -> None:
    real, fake = outputs(0)[0], outputs(1)[0]
    weights = (1 / 4, 1 / 2, 1.0)
    wanted = sum(w * (f - r).abs().mean() for w, f, r in zip(weights, fake, real, strict=True))
    assert abs(float(perceptual_loss(real, fake, weights)) - float(wanted)) <= TOLERANCE


def test_r1_is_half_the_squared_slope_of_the_mean_score() -> None:
    # Scores w . x of each pixel, at two sizes: the slope of D is w / (H W) at each pixel of each scale.
    weight = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    image = torch.rand(2, 3, 4, 6, dtype=torch.float64).requires_grad_()
    full = (image * weight[:, None, None]).sum(1, keepdim=True)
    scores = [[image, full], [image, F.avg_pool2d(full, 2)]]
    assert_close(r1_penalty(scores, image), torch.tensor(0.5 * 14 / 24, dtype=torch.float64))


def test_the_gradient_of_r1_is_that_of_its_differences() -> None:
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)

    def penalty(weight: Tensor) -> Tensor:
        return r1_penalty([[torch.tanh(F.conv2d(image, weight)).sum(1, keepdim=True)]], image)

    assert torch.autograd.gradcheck(penalty, weight)


def test_split_undoes_a_batch_of_fake_then_real() -> None:
    fake, real = outputs(0), outputs(1)
    both = [[torch.cat(pair) for pair in zip(*scale, strict=True)] for scale in zip(fake, real, strict=True)]
    for found, wanted in zip(split_fake_real(both), (fake, real), strict=True):
        assert all(torch.equal(a, b) for fs, ws in zip(found, wanted, strict=True) for a, b in zip(fs, ws, strict=True))


# ---- The perceptual loss ----


def torchvision_vgg19() -> nn.Sequential:
    """`features` of torchvision's vgg19 up to relu5_1, by its published configuration "E"."""
    layers: list[nn.Module] = []
    fin = 3
    for fout in [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512]:
        if isinstance(fout, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(fin, fout, 3, padding=1), nn.ReLU()]
            fin = fout
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def vgg() -> nn.Sequential:
    torch.manual_seed(0)
    return torchvision_vgg19().requires_grad_(False)


def state_of(vgg: nn.Sequential) -> dict[str, Tensor]:
    unused = {"classifier.0.weight": torch.zeros(2, 2)}
    return {f"features.{key}": tensor for key, tensor in vgg.state_dict().items()} | unused


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_perceptual_loss_is_the_weighted_l1_of_five_relus(vgg: nn.Sequential, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"vgg19{suffix}"
    save_file(state_of(vgg), path) if suffix == ".safetensors" else torch.save(state_of(vgg), path)
    loss = load_perceptual(str(path))
    assert isinstance(loss, PerceptualLoss)
    fake, real = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)
    wanted = torch.zeros(())
    for last, weight in {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}.items():  # relu1_1 .. relu5_1
        wanted = wanted + weight * (vgg[: last + 1](fake) - vgg[: last + 1](real)).abs().mean()
    found = loss(fake, real)
    assert abs(found - wanted) <= TOLERANCE * abs(wanted).clamp(min=1)
    assert wanted > 0
    found.backward()
    assert fake.grad is not None
    assert all(p.grad is None for p in loss.parameters())


def test_without_weights_it_is_off_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_perceptual("") is None
    assert len(caplog.records) == 1
    assert "perceptual loss off: no VGG19 weights given" in caplog.text


def test_weights_of_another_network_are_refused_with_every_key(vgg: nn.Sequential, tmp_path: Path) -> None:
    state = state_of(vgg)
    del state["features.28.weight"]
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    torch.save(state, tmp_path / "vgg16.pth")
    with pytest.raises(LossError, match=r"2 faults: missing features.28.weight; features.0.weight is \[64, 1, 3, 3\]"):
        load_perceptual(str(tmp_path / "vgg16.pth"))


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_weights_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"vgg19{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected (readable VGG19|PyTorch) weights but got '.*vgg19"):
        load_perceptual(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        load_perceptual(str(tmp_path / "none.pth"))


# ---- The features of another network ----


def test_feature_loss_is_the_l1_of_every_map(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)

        def forward(self, image: Tensor) -> list[Tensor]:
            first = self.one(image)
            return [first, self.two(first)]

    network, path = Two(), tmp_path / "features.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))
    loss = load_perceptual("", str(path))
    assert loss is not None
    fake, real = torch.randn(2, 2, 3, 9, 9).unbind()
    fake.requires_grad_()
    found = loss(fake, real)
    wanted = sum((f - r).abs().mean() for f, r in zip(network(fake), network(real), strict=True))
    assert_close(found, wanted)
    assert_close(torch.autograd.grad(found, fake), torch.autograd.grad(wanted, fake))
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_the_network_of_the_scenes_sees_texture() -> None:
    loss = load_perceptual("", "scenes")
    assert loss is not None
    one = scene(3, height=64, width=64)
    real = torch.from_numpy(one.image).permute(2, 0, 1)[None].float() / 127.5 - 1
    smooth = F.avg_pool2d(real, 9, 1, 4)
    assert loss(real, real) == 0
    assert loss(smooth, real) > 2 * loss(real + 0.01, real) > 0  # a smooth image is far, a brighter one near


def test_one_network_at_a_time() -> None:
    with pytest.raises(LossError, match=r"expected loss.vgg or loss.features but got both, 'a.pth' and 'scenes'"):
        load_perceptual("a.pth", "scenes")
