"""`accelerate` on layers of published networks, rebuilt from their papers: SDM, OASIS, SEAN, CLADE and INADE."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spade_core import accelerate
from spade_core.drop_in.layers import find_layers

ERROR = 1e-12  # in float64; sums of up to 9 * 128 terms
CHANNELS = 8


class Spade(nn.Module):
    """The layer of SDM and OASIS: 128 hidden channels behind a ReLU module, and a norm without parameters."""

    def __init__(self, norm: nn.Module, channels_in: int) -> None:
        super().__init__()
        self.norm = norm
        self.mlp_shared = nn.Sequential(nn.Conv2d(channels_in, 128, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(128, CHANNELS, 3, padding=1)
        self.mlp_beta = nn.Conv2d(128, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(segmap, size=x.shape[2:], mode="nearest"))
        out: Tensor = self.norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)
        return out


class ClassTables(nn.Module):
    """CLADE: a gamma and a beta for each class, so that no conv reads the map."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS, affine=False)
        self.gamma, self.beta = nn.Embedding(classes, CHANNELS), nn.Embedding(classes, CHANNELS)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        labels = F.interpolate(segmap, size=x.shape[2:], mode="nearest").argmax(1)
        out: Tensor = self.norm(x) * self.gamma(labels).movedim(-1, 1) + self.beta(labels).movedim(-1, 1)
        return out


class InstanceTables(ClassTables):
    """INADE: the mean and the deviation of gamma and beta by class, and one draw of them for each instance.

    The draws are given, [N, 2 C, H, W], constant over an instance.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.deviation = nn.Embedding(classes, 2 * CHANNELS)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        labels = F.interpolate(segmap, size=x.shape[2:], mode="nearest").argmax(1)
        draws = torch.sin(labels[:, None] * torch.arange(1, 2 * CHANNELS + 1)[:, None, None]).to(x.dtype)
        by_gamma, by_beta = (self.deviation(labels).movedim(-1, 1) * draws).chunk(2, dim=1)
        gamma, beta = self.gamma(labels).movedim(-1, 1) + by_gamma, self.beta(labels).movedim(-1, 1) + by_beta
        return self.norm(x) * gamma + beta


class RegionStyles(nn.Module):
    """SEAN: gamma and beta of a map of region styles, mixed with those of the label map by a learned share."""

    def __init__(self, classes: int, style: int) -> None:
        super().__init__()
        self.classes = classes
        self.norm = nn.BatchNorm2d(CHANNELS, affine=False)
        self.style_gamma = nn.Conv2d(style, CHANNELS, 3, padding=1)
        self.style_beta = nn.Conv2d(style, CHANNELS, 3, padding=1)
        self.shared = nn.Sequential(nn.Conv2d(classes, 128, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(128, CHANNELS, 3, padding=1)
        self.mlp_beta = nn.Conv2d(128, CHANNELS, 3, padding=1)
        self.share_gamma, self.share_beta = nn.Parameter(torch.rand(1)), nn.Parameter(torch.rand(1))

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        labels, styles = F.interpolate(segmap, size=x.shape[2:], mode="nearest").tensor_split([self.classes], dim=1)
        hidden = self.shared(labels)
        gamma = torch.lerp(self.mlp_gamma(hidden), self.style_gamma(styles), self.share_gamma)
        beta = torch.lerp(self.mlp_beta(hidden), self.style_beta(styles), self.share_beta)
        out: Tensor = self.norm(x) * (1 + gamma) + beta
        return out


class Layers(nn.Module):
    """One layer after another, on one map."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.leaky_relu(layer(x, segmap), 0.2)
        return x


def one_hot(classes: int) -> Tensor:
    labels = torch.randint(0, classes, (2, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return F.one_hot(labels, classes).movedim(-1, 1).double().contiguous()


def region_styles(segmap: Tensor, length: int) -> Tensor:
    """A style for each class of each image, at its pixels: [N, L, H, W] -> [N, length, H, W]."""
    return torch.einsum("nlhw,nls->nshw", segmap, torch.randn(*segmap.shape[:2], length, dtype=segmap.dtype))


def sdm() -> tuple[Layers, Tensor, int]:
    return Layers(Spade(nn.GroupNorm(4, CHANNELS, affine=False), 5), Spade(nn.GroupNorm(2, CHANNELS), 5)), one_hot(5), 2


def oasis() -> tuple[Layers, Tensor, int]:
    segmap = one_hot(5)
    noise = torch.randn(2, 6, 1, 1, dtype=segmap.dtype).expand(2, 6, *segmap.shape[2:])
    return Layers(Spade(nn.BatchNorm2d(CHANNELS, affine=False), 11)), torch.cat([noise, segmap], 1), 1


def styles_as_channels() -> tuple[Layers, Tensor, int]:
    segmap = one_hot(5)
    return Layers(Spade(nn.InstanceNorm2d(CHANNELS), 8)), torch.cat([segmap, region_styles(segmap, 3)], 1), 1


def clade() -> tuple[Layers, Tensor, int]:
    return Layers(ClassTables(5), Spade(nn.BatchNorm2d(CHANNELS, affine=False), 5)), one_hot(5), 1


def inade() -> tuple[Layers, Tensor, int]:
    return Layers(InstanceTables(5), Spade(nn.BatchNorm2d(CHANNELS, affine=False), 5)), one_hot(5), 1


def sean() -> tuple[Layers, Tensor, int]:
    segmap = one_hot(5)
    both = torch.cat([segmap, region_styles(segmap, 3)], 1)
    return Layers(RegionStyles(5, 3), Spade(nn.BatchNorm2d(CHANNELS, affine=False), 8)), both, 1


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", [sdm, oasis, styles_as_channels, clade, inade, sean])
def test_results_and_gradients_are_the_same(network: object, training: bool) -> None:
    """Tables and mixtures have no codebook and stay as they are; the SPADE layers beside them are accelerated."""
    assert callable(network)
    plain, segmap, layers = network()
    plain = plain.double().train(training)
    fast = accelerate(copy.deepcopy(plain))
    assert len(find_layers(plain)) == layers == sum("forward" in module.__dict__ for module in fast.modules())
    assert list(fast.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, CHANNELS, 8, 8, dtype=torch.float64)
    results = [model(x, segmap) for model in (plain, fast)]
    for result in results:
        result.square().mean().backward()
    assert_close(*results)
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert_close(one.grad, other.grad)
    for (name, one), other in zip(plain.state_dict().items(), fast.state_dict().values(), strict=True):
        assert torch.equal(one, other) or name.endswith(("running_mean", "running_var")), name
        assert_close(one.double(), other.double())
    with torch.no_grad():
        assert_close(plain.eval()(x, segmap), fast.eval()(x, segmap))


def assert_close(one: Tensor, other: Tensor) -> None:
    assert torch.isfinite(one).all()
    assert float((one - other).detach().abs().max()) <= ERROR * max(1.0, float(one.detach().abs().max()))
