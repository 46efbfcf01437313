"""`accelerate`: layers of other people's networks give the same results and gradients by codebook."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spade_core import accelerate, label_map, restore
from spade_core.drop_in.layers import find_layers
from spade_core.drop_in.recognise import SymbolMap, recognise

pytestmark = pytest.mark.usefixtures("seeded")

# Both ways add the same products in another order. The sums have up to 27 * 128 terms.
FLOAT32 = 2e-5
FLOAT64 = 1e-12


class Layer(nn.Module):
    """SPADE as several libraries write it: functional ReLU, kernel of any size, any norm, two or three dimensions."""

    def __init__(self, norm: nn.Module, labels: int, channels: int, kernel: int = 3, dims: int = 2) -> None:
        super().__init__()
        conv: Any = nn.Conv2d if dims == 2 else nn.Conv3d
        self.beta_of = conv(16, channels, kernel, padding=kernel // 2)  # registered before gamma, which names must tell
        self.gamma_of = conv(16, channels, kernel, padding=kernel // 2)
        self.hidden = conv(labels, 16, kernel, padding=kernel // 2)
        self.norm = norm

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        hidden = F.relu(self.hidden(F.interpolate(segmap, size=x.shape[2:], mode="nearest")))
        out: Tensor = self.norm(x) * (1 + self.gamma_of(hidden)) + self.beta_of(hidden)
        return out


class Network(nn.Module):
    """Two layers at two sizes around a conv."""

    def __init__(self, dims: int = 2, labels: int = 5, kernel: int = 3) -> None:
        super().__init__()
        conv: Any = nn.Conv2d if dims == 2 else nn.Conv3d
        self.one = Layer((nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(8, affine=False), labels, 8, kernel, dims)
        self.conv = conv(8, 8, 3, padding=1)
        self.two = Layer(nn.GroupNorm(2, 8), labels, 8, kernel, dims)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        x = self.conv(F.leaky_relu(self.one(x, segmap), 0.2))
        out: Tensor = self.two(F.interpolate(x, scale_factor=2.0), segmap)
        return out


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return F.one_hot(labels, classes).movedim(-1, 1).to(dtype).contiguous()


def blocks(images: int, classes: int, size: tuple[int, ...], block: int, seed: int = 0) -> Tensor:
    """Label maps of squares (or cubes) of one class, int64 [N, *size]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images, *(-(-side // block) for side in size)), generator=generator)
    for axis, side in enumerate(size):
        labels = labels.repeat_interleave(block, axis + 1).narrow(axis + 1, 0, side)
    return labels


def pair(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The network, and an accelerated copy."""
    return model, accelerate(copy.deepcopy(model))


def assert_close(one: Tensor, other: Tensor, error: float) -> None:
    assert one.shape == other.shape
    assert torch.isfinite(one).all()
    one, other = one.detach(), other.detach()
    largest = float((one.double() - other.double()).abs().max())
    assert largest <= error * max(1e-30, float(one.double().abs().max())), largest


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("images", [1, 2])  # the strides of a single image are PyTorch's to choose
@pytest.mark.parametrize(("dims", "kernel"), [(2, 1), (2, 3), (2, 5), (3, 1), (3, 3)])
def test_results_gradients_and_statistics_are_the_same(dims: int, kernel: int, images: int, training: bool) -> None:
    plain, fast = pair(Network(dims, kernel=kernel).double().train(training))
    segmap = one_hot(blocks(images, 5, (12, 16, 20)[:dims], 4), 5, torch.float64)
    x = torch.randn(images, 8, *(side // 2 for side in segmap.shape[2:]), dtype=torch.float64)
    outs, grads = [], []
    for model in (plain, fast):
        given = x.clone().requires_grad_()
        out = model(given, segmap)
        out.square().sum().backward()
        outs.append(out)
        grads.append([given.grad, *(parameter.grad for parameter in model.parameters())])
    assert_close(outs[0], outs[1], FLOAT64)
    for one, other in zip(*grads, strict=True):
        assert_close(one, other, FLOAT64)
    for one, other in zip(plain.buffers(), fast.buffers(), strict=True):
        assert_close(one.double(), other.double(), FLOAT64)


def test_state_and_restore() -> None:
    model = Network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    segmap, x = one_hot(blocks(1, 5, (16, 16), 4), 5), torch.randn(1, 8, 8, 8)
    expected = model(x, segmap)
    assert accelerate(model) is model
    assert accelerate(model) is model  # a second call changes nothing
    assert list(model.state_dict()) == list(before)
    assert_close(expected, model(x, segmap), FLOAT32)
    assert restore(model) is model
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert torch.equal(model(x, segmap), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


NORMS: list[Callable[[], nn.Module]] = [
    lambda: nn.InstanceNorm2d(8),
    lambda: nn.InstanceNorm2d(8, affine=True),
    lambda: nn.InstanceNorm2d(8, track_running_stats=True),
    lambda: nn.BatchNorm2d(8),
    lambda: nn.BatchNorm2d(8, track_running_stats=False),
    lambda: nn.GroupNorm(4, 8),
    lambda: nn.GroupNorm(1, 8, affine=False),
]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inference_has_every_norm_in_the_modulation(norm: Callable[[], nn.Module], layout: torch.memory_format) -> None:
    module = Layer(norm(), 5, 8).double().eval()
    with torch.no_grad():
        for value in (*module.norm.parameters(), *module.norm.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5)
        plain, fast = pair(module)
        segmap = one_hot(blocks(2, 5, (12, 16), 4), 5, torch.float64)
        x = (torch.randn(2, 8, 12, 16, dtype=torch.float64) + 3).to(memory_format=layout)
        assert_close(plain(x, segmap), fast(x, segmap), FLOAT64)
        plain.norm.register_forward_hook(lambda *_: x)
        fast.norm.register_forward_hook(lambda *_: x)  # a hook is called, here one that replaces the norm
        assert_close(plain(x, segmap), fast(x, segmap), FLOAT64)


def test_copies_are_accelerated_and_independent() -> None:
    fast = accelerate(Network().eval())
    segmap, x = one_hot(blocks(1, 5, (16, 16), 4), 5), torch.randn(1, 8, 8, 8)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        with torch.no_grad():
            other.one.gamma_of.weight.zero_()
            assert not torch.equal(other(x, segmap), fast(x, segmap))
            assert_close(restore(copy.deepcopy(other))(x, segmap), other(x, segmap), FLOAT32)


@pytest.mark.parametrize("inference", [False, True])
def test_a_map_changed_in_place_is_looked_at_again(inference: bool) -> None:
    plain, fast = pair(Network().eval())
    with torch.inference_mode(inference), torch.no_grad():
        segmap, x = one_hot(blocks(1, 5, (16, 16), 4), 5), torch.randn(1, 8, 8, 8)
        for _ in range(2):
            assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)
            segmap.copy_(segmap.roll(1, dims=1))


def test_a_soft_map_runs_the_layers_own_convs_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    plain, fast = pair(Network().eval())
    soft, x = torch.randn(1, 5, 64, 64).softmax(1), torch.randn(1, 8, 32, 32)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with torch.no_grad():
                assert_close(plain(x, soft), fast(x, soft), FLOAT32)
    assert len([record for record in caplog.records if "soft" in record.message]) == 1


def test_a_map_that_needs_a_gradient_gets_one() -> None:
    plain, fast = pair(Network().eval())
    segmap, x = one_hot(blocks(1, 5, (16, 16), 4), 5), torch.randn(1, 8, 8, 8)
    grads = []
    for model in (plain, fast):
        given = segmap.clone().requires_grad_()
        model(x, given).sum().backward()
        grads.append(given.grad)
    assert torch.equal(*grads)


def test_noise_of_an_image_and_edges_are_symbols_too() -> None:
    """OASIS puts a noise vector behind the classes, the same at every pixel of an image; GauGAN an edge bit."""
    labels = blocks(2, 5, (16, 16), 4)
    noise = torch.randn(2, 3, 1, 1).expand(2, 3, 16, 16)
    edges = (torch.rand(2, 1, 16, 16) < 0.2).float()
    plain, fast = pair(Network(labels=9).eval())
    segmap, x = torch.cat([one_hot(labels, 5), noise, edges], 1), torch.randn(2, 8, 8, 8)
    found = recognise(segmap)
    assert isinstance(found, SymbolMap)
    assert found.count <= 20
    assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)


def test_kept_codebooks_follow_the_parameters() -> None:
    plain, fast = pair(Network().eval())
    segmap = one_hot(blocks(1, 5, (16, 16), 4), 5)
    other = one_hot(blocks(1, 5, (16, 16), 4, seed=1), 5)
    with torch.no_grad(), label_map(fast, segmap):
        for step in range(3):
            x = torch.randn(1, 8, 8, 8)
            for given in (segmap, segmap.clone(), other):
                assert_close(plain(x, given), fast(x, given), FLOAT32)
            if step == 1:
                for model in (plain, fast):
                    model.two.hidden.weight.mul_(1.5)


def test_autocast_and_compile() -> None:
    plain, fast = pair(Network().eval())
    segmap, x = one_hot(blocks(1, 5, (32, 32), 8), 5), torch.randn(1, 8, 16, 16)
    with torch.no_grad():
        expected = plain(x, segmap)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(expected, fast(x, segmap).float(), 0.05)
        compiled = torch.compile(fast, backend="eager")
        assert_close(expected, compiled(x, segmap), FLOAT32)
        explained = torch._dynamo.explain(fast)(x, segmap)
    assert explained.graph_break_count <= 2  # one a layer


def test_a_network_without_spade_is_an_error() -> None:
    with pytest.raises(ValueError, match="found none in Sequential"):
        accelerate(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    with pytest.raises(ValueError, match="call accelerate"), label_map(Network(), torch.ones(1, 5, 4, 4)):
        pass


class GammaAlone(Layer):
    """No 1 is added to gamma."""

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.hidden(F.interpolate(segmap, size=x.shape[2:])), 0.2)
        out: Tensor = self.norm(x) * self.gamma_of(hidden) + self.beta_of(hidden)
        return out


class Another(Layer):
    """The structure of SPADE with another formula."""

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        hidden = F.relu(self.hidden(F.interpolate(segmap, size=x.shape[2:])))
        out: Tensor = self.norm(x) * (1 + self.gamma_of(hidden)).tanh() + self.beta_of(hidden)
        return out


def test_layers_are_told_by_what_they_compute() -> None:
    norm = nn.InstanceNorm2d(8)
    (layer,) = find_layers(GammaAlone(norm, 5, 8)).values()
    assert not layer.one_plus
    assert (layer.parts.gamma, layer.parts.beta) == ("gamma_of", "beta_of")
    assert not find_layers(Another(norm, 5, 8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 2.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_map_with_one_odd_value_is_not_one_hot(value: float, dtype: torch.dtype) -> None:
    segmap = one_hot(blocks(1, 5, (8, 8), 4), 5, dtype)
    segmap[0, int(segmap[0, :, 3, 3].argmax()), 3, 3] = value
    found = recognise(segmap)
    assert isinstance(found, SymbolMap)
    assert found.vectors is not None
    assert torch.equal(found.vectors[found.symbols].movedim(-1, 1).nan_to_num(7), segmap.nan_to_num(7))


@settings(deadline=None, max_examples=30)
@given(st.tuples(*(st.integers(1, 12) for _ in range(3))), st.integers(1, 6), st.integers(0, 3), st.integers(0, 99))
def test_a_recognised_map_is_its_symbols(size: tuple[int, int, int], classes: int, dead: int, seed: int) -> None:
    """The symbols give the map back to the bit, whatever one-hot map it is and wherever no class is set."""
    generator = torch.Generator().manual_seed(seed)
    segmap = one_hot(torch.randint(0, classes, size, generator=generator), classes)
    for _ in range(dead):
        segmap[0, :, int(torch.randint(0, size[1], (), generator=generator))] = 0
    found = recognise(segmap)
    assert isinstance(found, SymbolMap)
    vectors = torch.eye(classes)[found.classes] if found.vectors is None else found.vectors
    assert found.count == len(vectors) == len(found.symbols.unique())
    assert torch.equal(vectors[found.symbols].movedim(-1, 1), segmap)
