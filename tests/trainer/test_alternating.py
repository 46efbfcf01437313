"""`optim.updates = "alternating"` against the paper's recipe, written a second time from the equations.

The second implementation is plain PyTorch on one-hot maps: its own layers, spectral norm, batch norm, losses and Adam.
It shares nothing with the trainer but the starting weights, the label maps, the photos and the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from small_run import small
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.data.dataset import Batch, Positions, Stream, loader
from trainer.networks import Networks, build
from trainer.perceptual import PerceptualLoss
from trainer.processes import Processes
from trainer.step import train_step
from trainer.training import Moment, Training, optimisers

ALONE = Processes(0, 1, torch.device("cpu"))
STEPS = 3
LR = 2e-4
# Float64 sums of up to 256 * 256 numbers in two orders, through three steps: a share of the largest weight.
EXACT = 1e-7
# Adam divides by its gradient plus 1e-8. Where the gradient is near 1e-8 or below, such as a bias before a norm, its
# rounding of 1e-12 moves a weight by 1e-4 of a step. A step left out or made twice moves weights by whole steps.
ROUNDING = 1e-3 * LR
CONFIG = small(optim={"updates": "alternating", "lr": LR}, loss={"perceptual": 10.0, "pixel": 0.0})
State = dict[str, Tensor]


class Features(nn.Module):
    """Two maps of fixed weights, in the place of VGG19."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.first = nn.Parameter(torch.randn(4, 3, 3, 3, generator=generator))
        self.second = nn.Parameter(torch.randn(5, 4, 3, 3, generator=generator))

    def forward(self, image: Tensor) -> list[Tensor]:
        one = F.relu(F.conv2d(image, self.first, padding=1))
        return [one, F.relu(F.conv2d(F.max_pool2d(one, 2), self.second, padding=1))]


FEATURE_WEIGHTS = (0.5, 1.0)


@cache
def batches() -> list[Batch]:
    size = CONFIG.optim.batch
    return list(loader(Stream(CONFIG), CONFIG, Positions(0, STEPS * size, 0, 1, size), 0))


def start(config: TrainConfig = CONFIG) -> Networks:
    networks = build(config, ALONE)
    for _, module in networks.trained():
        for parameter in module.parameters():  # away from the near-zero start, where the image is grey
            parameter.data.mul_(10)
    return networks


def state(networks: Networks) -> State:
    """Weights and buffers of the three networks, in float64."""
    return {
        f"{name}.{key}": tensor.detach().double().clone()
        for name, module in networks.trained()
        for key, tensor in module.state_dict().items()
    }


@cache
def trained(dtype: torch.dtype, config: TrainConfig = CONFIG) -> State:
    """The state after the trainer's steps, in the codebook form."""
    networks = start(config)
    for _, module in networks.everything():
        module.to(dtype)
    features = Features().to(dtype)
    perceptual = PerceptualLoss(features, features, FEATURE_WEIGHTS)
    training = Training(networks, optimisers(networks, config.optim), perceptual, config, ALONE)
    for step, batch in enumerate(batches()):
        train_step(training, [batch], Moment(step, step * config.optim.batch))
    return state(networks)


class Paper:
    """The recipe on the state of three networks, at one precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.state = {key: tensor.to(dtype) for key, tensor in state(start()).items()}
        self.parameters = {
            f"{name}.{key}" for name, module in start().trained() for key, _ in module.named_parameters()
        }
        self.features = Features().to(dtype).requires_grad_(False)
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}

    def step(self, number: int, batch: Batch) -> None:
        segmap = F.one_hot(batch.symbols.long(), 16).permute(0, 3, 1, 2).to(self.dtype)
        real = batch.images.to(self.dtype) / 127.5 - 1
        own = [key for key in self.parameters if not key.startswith("discriminator.")]
        with self.learning(own):
            fake, kl = self.draw(segmap, real, batch.noise)
            fakes, reals = self.judge(segmap, fake, real)
            adversarial = sum(-scale[-1].mean() for scale in fakes) / 2
            matching = sum(
                (f - r.detach()).abs().mean()
                for fs, rs in zip(fakes, reals, strict=True)
                for f, r in zip(fs[:-1], rs[:-1], strict=True)
            )
            compared = sum(
                w * (f - r).abs().mean()
                for w, f, r in zip(FEATURE_WEIGHTS, self.features(fake), self.features(real), strict=True)
            )
            self.adam(number, own, adversarial + 10 / 2 * matching + 10 * compared + 0.05 * kl, LR / 2)
        own = [key for key in self.parameters if key.startswith("discriminator.")]
        with torch.no_grad():
            fake, _ = self.draw(segmap, real, batch.second_noise)
        with self.learning(own):
            fakes, reals = self.judge(segmap, fake, real)
            loss = sum(F.relu(1 - r[-1]).mean() + F.relu(1 + f[-1]).mean() for r, f in zip(reals, fakes, strict=True))
            self.adam(number, own, loss / 2, LR * 2)

    def learning(self, keys: list[str]) -> torch.enable_grad:
        for key in self.state:
            self.state[key] = self.state[key].detach()
        for key in keys:
            self.state[key].requires_grad_()
        return torch.enable_grad()

    def adam(self, number: int, keys: list[str], loss: Tensor, rate: float) -> None:
        gradients = torch.autograd.grad(loss, [self.state[key] for key in keys])
        for key, gradient in zip(keys, gradients, strict=True):
            first, second = self.moments.get(key, (torch.zeros_like(gradient), torch.zeros_like(gradient)))
            first, second = 0.0 * first + gradient, 0.9 * second + 0.1 * gradient**2
            self.moments[key] = first, second
            moved = first / ((second / (1 - 0.9 ** (number + 1))).sqrt() + 1e-8)
            self.state[key] = self.state[key].detach() - rate * moved

    def spectral(self, name: str) -> Tensor:
        """W / sigma after one power iteration."""
        weight = self.state[f"{name}.weight_orig"]
        matrix, u = weight.detach().flatten(1), self.state[f"{name}.weight_u"]
        v = F.normalize(matrix.T @ u, dim=0, eps=1e-12)
        u = F.normalize(matrix @ v, dim=0, eps=1e-12)
        self.state[f"{name}.weight_u"], self.state[f"{name}.weight_v"] = u, v
        return weight / (u @ weight.flatten(1) @ v)

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        weight = self.spectral(name) if f"{name}.weight_orig" in self.state else self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, padding)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def draw(self, segmap: Tensor, real: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The fake images and the KL divergence."""
        x = F.interpolate(real, size=(256, 256), mode="bilinear", align_corners=False)
        for i in range(1, 7):
            x = F.leaky_relu(instance_norm(self.conv(f"encoder.layer{i}.0", x, 2, 1)), 0.2)
        mean, log_variance = self.linear("encoder.fc_mu", x.flatten(1)), self.linear("encoder.fc_var", x.flatten(1))
        style = mean + torch.exp(log_variance / 2) * noise.to(self.dtype)
        x = self.linear("generator.fc", style).view(len(style), -1, 1, 1)
        for block in ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3"):
            if block not in ("head_0", "G_middle_1"):
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = self.block(f"generator.{block}", x, segmap)
        fake = torch.tanh(self.conv("generator.conv_img", F.leaky_relu(x, 0.2), padding=1))
        return fake, -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()

    def block(self, name: str, x: Tensor, segmap: Tensor) -> Tensor:
        dx = self.conv(f"{name}.conv_0", F.leaky_relu(self.spade(f"{name}.norm_0", x, segmap), 0.2), padding=1)
        dx = self.conv(f"{name}.conv_1", F.leaky_relu(self.spade(f"{name}.norm_1", dx, segmap), 0.2), padding=1)
        if f"{name}.conv_s.weight_orig" in self.state:
            x = self.conv(f"{name}.conv_s", self.spade(f"{name}.norm_s", x, segmap))
        return x + dx

    def spade(self, name: str, x: Tensor, segmap: Tensor) -> Tensor:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        count = x.numel() / x.shape[1]
        for key, value in (("running_mean", mean), ("running_var", variance * count / (count - 1))):
            key = f"{name}.param_free_norm.{key}"
            self.state[key] = 0.9 * self.state[key] + 0.1 * value.detach()
        self.state[f"{name}.param_free_norm.num_batches_tracked"] += 1
        normed = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        step = segmap.shape[2] // x.shape[2]
        hidden = F.relu(self.conv(f"{name}.mlp_shared.0", segmap[:, :, ::step, ::step], padding=1))
        gamma, beta = (self.conv(f"{name}.mlp_{part}", hidden, padding=1) for part in ("gamma", "beta"))
        return normed * (1 + gamma) + beta

    def judge(self, segmap: Tensor, fake: Tensor, real: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Outputs for fake and real, judged in one batch, of both scales."""
        x = torch.cat([torch.cat([segmap, fake], 1), torch.cat([segmap, real], 1)])
        scales = []
        for i in range(2):
            scales.append(list(self.patches(f"discriminator.discriminator_{i}", x)))
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        half = len(fake)
        return [[o[:half] for o in scale] for scale in scales], [[o[half:] for o in scale] for scale in scales]

    def patches(self, name: str, x: Tensor) -> Iterator[Tensor]:
        x = F.leaky_relu(self.conv(f"{name}.model0.0", x, 2, 2), 0.2)
        yield x
        for i, stride in ((1, 2), (2, 1)):
            x = F.leaky_relu(instance_norm(self.conv(f"{name}.model{i}.0.0", x, stride, 2)), 0.2)
            yield x
        yield self.conv(f"{name}.model3.0", x, 1, 2)


def instance_norm(x: Tensor) -> Tensor:
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


@cache
def paper(dtype: torch.dtype) -> State:
    """The state after the paper's steps."""
    recipe = Paper(dtype)
    for number, batch in enumerate(batches()):
        recipe.step(number, batch)
    return {key: tensor.detach().double() for key, tensor in recipe.state.items()}


def distance(found: State, wanted: State, side: str) -> float:
    """The norm of the difference over all weights and buffers of a network."""
    return sum(float((found[k] - w).square().sum()) for k, w in wanted.items() if k.startswith(f"{side}.")) ** 0.5


def test_three_steps_in_float64_are_the_papers() -> None:
    found, wanted, before = trained(torch.float64), paper(torch.float64), state(start())
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        error = float((found[key] - tensor).abs().max())
        assert error <= max(EXACT * float(tensor.abs().max()), ROUNDING), key
    for side in ("generator", "encoder", "discriminator"):
        assert distance(before, wanted, side) > 1e4 * distance(found, wanted, side), "the steps move every network"
    tracked = [found[key] for key in found if key.endswith("num_batches_tracked")]
    assert tracked
    assert all(count == 2 * STEPS for count in tracked), "two batch-norm updates a step"


@pytest.mark.parametrize("side", ["generator", "encoder", "discriminator"])
def test_three_steps_in_float32_lose_what_float32_loses(side: str) -> None:
    """Adam turns a gradient that is all rounding into a step of full size, in any float32 implementation."""
    wanted = paper(torch.float64)
    rounding = distance(paper(torch.float32), wanted, side)
    assert distance(trained(torch.float32), wanted, side) <= 3 * rounding
    assert rounding < 0.2 * distance(state(start()), wanted, side), "float32 does not drown the steps"


def test_shared_updates_are_another_recipe() -> None:
    shared = small(optim={"updates": "shared", "lr": LR}, loss={"perceptual": 10.0, "pixel": 0.0})
    found, wanted = trained(torch.float64, shared), paper(torch.float64)
    assert distance(found, wanted, "generator") > 0.01 * distance(state(start()), wanted, "generator")
    assert all(found[key] == STEPS for key in found if key.endswith("num_batches_tracked"))
