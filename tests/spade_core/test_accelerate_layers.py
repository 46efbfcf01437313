"""`accelerate` on layers of published networks, rebuilt from their papers: SDM, OASIS, SEAN, CLADE and INADE."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spade_core import accelerate, label_map, restore
from spade_core.drop_in.by_region import RegionForward
from spade_core.drop_in.forward import CodebookForward

pytestmark = pytest.mark.usefixtures("seeded")

ERROR = 1e-12  # in float64; sums of up to 9 * 128 terms
CHANNELS = 8
CLASSES = 5


class Spade(nn.Module):
    """The layer of SDM and OASIS: 128 hidden channels behind a ReLU module, and a norm without parameters."""

    def __init__(self, norm: nn.Module, channels_in: int, resizes: bool = True) -> None:
        super().__init__()
        self.norm, self.resizes = norm, resizes
        self.mlp_shared = nn.Sequential(nn.Conv2d(channels_in, 128, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(128, CHANNELS, 3, padding=1)
        self.mlp_beta = nn.Conv2d(128, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(segmap, size=x.shape[2:], mode="nearest") if self.resizes else segmap)
        out: Tensor = self.norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)
        return out


class ClassTables(nn.Module):
    """CLADE: a gamma and a beta for each class, so that no conv reads the map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS, affine=False)
        self.weight, self.bias = (nn.Parameter(torch.randn(CLASSES, CHANNELS)) for _ in range(2))

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        labels = F.interpolate(segmap, size=x.shape[2:], mode="nearest").argmax(1)
        gamma, beta = (F.embedding(labels, table).movedim(-1, 1) for table in (self.weight, self.bias))
        return self.norm(x) * gamma + beta


class InstanceTables(nn.Module):
    """INADE: means and deviations of gamma and beta by class, and a draw of them for each instance of each image.

    `instances` [N, 1, H, W] holds ids, `draws` [N, ids, 2 C] standard normal numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS, affine=False)
        self.mean, self.deviation = nn.Embedding(CLASSES, 2 * CHANNELS), nn.Embedding(CLASSES, 2 * CHANNELS)

    def forward(self, x: Tensor, segmap: Tensor, instances: Tensor, draws: Tensor) -> Tensor:
        labels = F.interpolate(segmap, size=x.shape[2:], mode="nearest").argmax(1)
        ids = F.interpolate(instances.to(x.dtype), size=x.shape[2:], mode="nearest")[:, 0].long()
        drawn = torch.stack([rows[numbers] for rows, numbers in zip(draws, ids, strict=True)])  # [N, h, w, 2 C]
        gamma, beta = (self.mean(labels) + self.deviation(labels) * drawn).movedim(-1, 1).chunk(2, dim=1)
        return self.norm(x) * gamma + beta


class RegionStyles(nn.Module):
    """SEAN: a style code for each class of each image, through a linear layer of its class, convs on the map of them,
    mixed with SPADE's gamma and beta by a learned share; learned noise is added to x.
    """

    def __init__(self, style: int = 6) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(CHANNELS)
        self.noise = nn.Parameter(torch.randn(CHANNELS))
        self.by_class = nn.ModuleList(nn.Linear(style, style) for _ in range(CLASSES))
        self.conv_gamma = nn.Conv2d(style, CHANNELS, 3, padding=1)
        self.conv_beta = nn.Conv2d(style, CHANNELS, 3, padding=1)
        self.label = nn.Module()
        self.label.shared = nn.Sequential(nn.Conv2d(CLASSES, 128, 3, padding=1), nn.ReLU())
        self.label.gamma = nn.Conv2d(128, CHANNELS, 3, padding=1)
        self.label.beta = nn.Conv2d(128, CHANNELS, 3, padding=1)
        self.share_gamma, self.share_beta = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, segmap: Tensor, codes: Tensor) -> Tensor:
        normed = self.norm(x + torch.randn_like(x[:, :1]) * self.noise.view(1, -1, 1, 1))
        segmap = F.interpolate(segmap, size=x.shape[2:], mode="nearest")
        styles = torch.stack([F.relu(by(codes[:, n])) for n, by in enumerate(self.by_class)], 1)  # [N, classes, style]
        middle = torch.einsum("nlhw,nls->nshw", segmap, styles)
        hidden = self.label.shared(segmap)
        gamma = torch.lerp(self.label.gamma(hidden), self.conv_gamma(middle), self.share_gamma.sigmoid())
        beta = torch.lerp(self.label.beta(hidden), self.conv_beta(middle), self.share_beta.sigmoid())
        return normed * (1 + gamma) + beta


class Layers(nn.Module):
    """One layer after another, on one map."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, segmap: Tensor, *others: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.leaky_relu(layer(x, segmap) if isinstance(layer, Spade) else layer(x, segmap, *others), 0.2)
        return x


class Levels(nn.Module):
    """Layers that do not resize: the network resizes the map, once for each of two sizes."""

    def __init__(self, mode: str = "nearest") -> None:
        super().__init__()
        self.mode = mode
        self.layers = nn.ModuleList(Spade(nn.InstanceNorm2d(CHANNELS), CLASSES, resizes=False) for _ in range(4))

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        for layers in (self.layers[:2], self.layers[2:]):
            resized = F.interpolate(segmap, size=x.shape[2:], mode=self.mode)
            for layer in layers:
                x = F.leaky_relu(layer(x, resized), 0.2)
            x = F.interpolate(x, scale_factor=2.0)
        return x


@dataclass
class Case:
    """A network, its arguments behind x, how many of its layers are accelerated by which forward."""

    network: nn.Module
    args: tuple[Tensor, ...]
    codebooks: int = 1
    regions: int = 0


def one_hot() -> Tensor:
    labels = torch.randint(0, CLASSES, (2, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return F.one_hot(labels, CLASSES).movedim(-1, 1).double().contiguous()


def sdm() -> Case:
    norms = nn.GroupNorm(4, CHANNELS, affine=False), nn.GroupNorm(2, CHANNELS)
    return Case(Layers(*(Spade(norm, CLASSES) for norm in norms)), (one_hot(),), codebooks=2)


def oasis() -> Case:
    segmap = one_hot()
    noise = torch.randn(2, 6, 1, 1, dtype=segmap.dtype).expand(2, 6, *segmap.shape[2:])
    return Case(Layers(Spade(nn.BatchNorm2d(CHANNELS, affine=False), 11)), (torch.cat([noise, segmap], 1),))


def styles_as_channels() -> Case:
    segmap = one_hot()
    styles = torch.einsum("nlhw,nls->nshw", segmap, torch.randn(2, CLASSES, 3, dtype=segmap.dtype))
    return Case(Layers(Spade(nn.InstanceNorm2d(CHANNELS), 8)), (torch.cat([segmap, styles], 1),))


def clade() -> Case:
    spade = Spade(nn.BatchNorm2d(CHANNELS, affine=False), CLASSES)
    return Case(Layers(ClassTables(), spade, ClassTables()), (one_hot(),), regions=2)


def inade() -> Case:
    instances = torch.randint(0, 7, (2, 1, 8, 8)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    draws = torch.randn(2, 7, 2 * CHANNELS, dtype=torch.float64)
    return Case(Layers(InstanceTables(), InstanceTables()), (one_hot(), instances, draws), 0, 2)


def sean() -> Case:
    codes = torch.randn(2, CLASSES, 6, dtype=torch.float64, requires_grad=True)
    return Case(Layers(RegionStyles(), RegionStyles()), (one_hot(), codes), 0, 2)


def not_resizing() -> Case:
    return Case(Levels(), (one_hot(),), codebooks=4)


def resizing_by_another_rule() -> Case:
    """Resized bilinearly, the map of the first level holds mixtures of classes, each a symbol of its own."""
    return Case(Levels("bilinear"), (one_hot(),), codebooks=4)


CASES = [sdm, oasis, styles_as_channels, clade, inade, sean, not_resizing, resizing_by_another_rule]


def results(network: nn.Module, args: tuple[Any, ...], x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """The result, and the gradients at x, at arguments that want one, and at the parameters."""
    x = x.clone().requires_grad_()
    wanted = [x, *(each for each in args if each.requires_grad), *network.parameters()]
    torch.manual_seed(3)  # of the noise that a network adds
    out = network(x, *args)
    return out.detach(), list(torch.autograd.grad(out.square().mean(), wanted, allow_unused=True))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", CASES)
def test_results_and_gradients_are_the_same(
    make: Callable[[], Case], training: bool, caplog: pytest.LogCaptureFixture
) -> None:
    case = make()
    plain = case.network.double().train(training)
    fast = accelerate(copy.deepcopy(plain))
    forwards = [module.__dict__["forward"] for module in fast.modules() if "forward" in module.__dict__]
    assert sum(isinstance(forward, CodebookForward) for forward in forwards) == case.codebooks
    assert sum(isinstance(forward, RegionForward) for forward in forwards) == case.regions
    assert list(fast.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, CHANNELS, 8, 8, dtype=torch.float64)
    (expected, grads), (out, fast_grads) = (results(network, case.args, x) for network in (plain, fast))
    assert_close(expected, out)
    assert len(grads) == len(fast_grads)
    for one, other in zip(grads, fast_grads, strict=True):
        assert one is not None
        assert other is not None
        assert_close(one, other)
    for (name, value), other in zip(plain.state_dict().items(), fast.state_dict().values(), strict=True):
        assert torch.equal(value, other) or name.endswith(("running_mean", "running_var")), name
        assert_close(value.double(), other.double())
    with torch.no_grad():
        for network in (plain.eval(), fast.eval()):
            torch.manual_seed(3)
            expected, out = out, network(x, *case.args)
        assert_close(expected, out)
    for forward in forwards:
        if isinstance(forward, RegionForward):
            assert forward._proved
            assert all(forward._proved.values())
    assert not caplog.records
    restore(fast)
    assert all("forward" not in module.__dict__ for module in fast.modules())


def counted(network: nn.Module, args: tuple[Tensor, ...], x: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, *args)
    return counter.get_total_flops()


def blocks_of_classes(side: int) -> Tensor:
    labels = torch.randint(0, CLASSES, (1, 4, 4)).repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2)
    return F.one_hot(labels, CLASSES).movedim(-1, 1).double().contiguous()


def test_sean_multiplies_less() -> None:
    """Every conv reads each distinct patch once. Without that, the layer would be left as it is in silence."""
    segmap = blocks_of_classes(64)
    args = segmap, torch.randn(1, CLASSES, 6, dtype=torch.float64)
    x = torch.randn(1, CHANNELS, 64, 64, dtype=torch.float64)
    plain = Layers(RegionStyles()).double().eval()
    fast = accelerate(copy.deepcopy(plain))
    with torch.no_grad():
        fast(x, *args)  # tried at the first call
    assert counted(fast, args, x) < counted(plain, args, x) / 4


def test_tables_are_read_once_for_each_region() -> None:
    segmap, x = blocks_of_classes(64), torch.randn(1, CHANNELS, 64, 64, dtype=torch.float64)
    layer = ClassTables().double().eval()
    fast = accelerate(copy.deepcopy(layer))
    rows: list[int] = []
    with torch.no_grad():
        expected = fast(x, segmap)
        embedding = F.embedding

        def counting(labels: Tensor, table: Tensor) -> Tensor:
            rows.append(labels.numel())
            return embedding(labels, table)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "embedding", counting)
            assert torch.equal(fast(x, segmap), expected)
    present = int((segmap.sum((0, 2, 3)) > 0).sum())
    assert rows == [2 * present, 2 * present]  # a pixel of each class at x = 0 and at x = 1


def test_levels_of_a_network_that_resizes_keep_their_codebooks() -> None:
    segmap, x = blocks_of_classes(16), torch.randn(1, CHANNELS, 8, 8, dtype=torch.float64)
    plain = Levels().double().eval()
    fast = accelerate(copy.deepcopy(plain))
    with torch.no_grad(), label_map(fast, segmap):
        assert_close(plain(x, segmap), fast(x, segmap))
        assert counted(fast, (segmap,), x) == 0  # every codebook is kept
        other = segmap.roll(1, 1)
        assert_close(plain(x, other), fast(x, other))
        assert_close(plain(x, segmap), fast(x, segmap))


class ByFeatures(ClassTables):
    """Tables whose rows are chosen by x too: no table of regions."""

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        return super().forward(x, segmap) * (x.mean((2, 3), keepdim=True) > 0)


class ByNeighbours(ClassTables):
    """Tables of a map that was blurred, so that a pixel reads its neighbours."""

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        return super().forward(x, F.avg_pool2d(segmap, 3, 1, 1))


class StyleMap(nn.Module):
    """Convs on a map of styles that the caller made."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(CHANNELS)
        self.gamma, self.beta = (nn.Conv2d(6, CHANNELS, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, segmap: Tensor, styles: Tensor) -> Tensor:
        return self.norm(x) * self.gamma(styles) + self.beta(styles) + 0 * segmap.sum()


@pytest.mark.parametrize("wanted", [False, True])
def test_a_map_that_wants_a_gradient_gets_that_of_every_pixel(wanted: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A conv by patch reads one pixel of each region, whose gradient would be that of all of them."""
    segmap = one_hot()
    styles = torch.einsum("nlhw,nls->nshw", segmap, torch.randn(2, CLASSES, 6, dtype=torch.float64))
    args = segmap, styles.requires_grad_(wanted)
    plain = Layers(StyleMap()).double()
    fast = accelerate(copy.deepcopy(plain))
    x = torch.randn(2, CHANNELS, 16, 16, dtype=torch.float64)
    (expected, grads), (out, fast_grads) = (results(network, args, x) for network in (plain, fast))
    assert_close(expected, out)
    for one, other in zip(grads, fast_grads, strict=True):
        assert one is not None
        assert other is not None
        assert_close(one, other)
    assert bool(caplog.records) == wanted


@pytest.mark.parametrize("layer", [ByFeatures, ByNeighbours])
def test_a_layer_of_another_rule_is_left_as_it_is(layer: type[nn.Module], caplog: pytest.LogCaptureFixture) -> None:
    plain = Layers(layer()).double().eval()
    fast = accelerate(copy.deepcopy(plain))
    x, segmap = torch.randn(2, CHANNELS, 16, 16, dtype=torch.float64), one_hot()
    for _ in range(2):
        assert torch.equal(plain(x, segmap), fast(x, segmap))
    assert [record.message for record in caplog.records] == [
        f"the {layer.__name__} layers run as they are: their gamma and beta are not given by regions alone"
    ]


def test_a_first_map_of_one_class_proves_nothing_about_edges() -> None:
    plain = Layers(ByNeighbours()).double().eval()
    fast = accelerate(copy.deepcopy(plain))
    x, segmap = torch.randn(2, CHANNELS, 16, 16, dtype=torch.float64), one_hot()
    uniform = torch.zeros_like(segmap)
    uniform[:, 1] = 1
    for given in (uniform, segmap):
        assert_close(plain(x, given), fast(x, given))


class Portrait(nn.Module):
    """LivePortrait: gamma and beta of features, at every pixel, in place of a label map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(Spade(nn.InstanceNorm2d(CHANNELS), 6) for _ in range(2))

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        features = self.conv(image)
        for layer in self.layers:
            x = F.leaky_relu(layer(x, features), 0.2)
        return x


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_have_the_fused_modulation_alone(
    layout: torch.memory_format, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Portrait().double().to(memory_format=layout).eval()
    fast = accelerate(copy.deepcopy(plain))
    x = torch.randn(2, CHANNELS, 24, 24, dtype=torch.float64).to(memory_format=layout)
    image = torch.randn(2, 3, 48, 48, dtype=torch.float64).to(memory_format=layout)
    for _ in range(2):
        with torch.no_grad():
            assert_close(plain(x, image), fast(x, image))
    (record,) = caplog.records
    assert record.message == (
        "the SPADE layers run their own convs, and only the modulation is fused: its label map is soft or made of "
        "features: nearly every pixel holds another channel vector"
    )
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.InstanceNorm2d, "forward", None)  # the fused pass takes the norm's place
        fast(x, image)
    (expected, grads), (out, fast_grads) = (results(network, (image,), x) for network in (plain, fast))
    assert torch.equal(expected, out)
    for one, other in zip(grads, fast_grads, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    (_, record) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("the SPADE layers run as they are: its label map needs a gradient")


def assert_close(one: Tensor, other: Tensor) -> None:
    assert torch.isfinite(one).all()
    assert float((one - other).detach().abs().max()) <= ERROR * max(1.0, float(one.detach().abs().max()))
