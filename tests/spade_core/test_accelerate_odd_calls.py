"""`accelerate` where a network is called, copied, changed or recorded in a way that its first call did not show."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.flop_counter import FlopCounterMode

from spade_core import accelerate, label_map, restore
from spade_core.drop_in.forward import CodebookForward
from spade_core.drop_in.layers import find_layers
from spade_core.drop_in.recognise import SymbolMap, recognise
from tests.spade_core.test_accelerate import FLOAT32, FLOAT64, Layer, Network, assert_close, blocks, one_hot, pair

pytestmark = pytest.mark.usefixtures("seeded")


def inputs(side: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(1, 8, side // 2, side // 2), one_hot(blocks(1, 5, (side, side), side // 4, seed), 5)


def flops(model: Any, *args: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*args)
    total: int = counter.get_total_flops()
    return total


# ---- Layouts, sizes and dtypes ----

LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    lambda x: x.repeat_interleave(2, 3)[..., ::2],
    lambda x: x.to(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d),
]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_x_and_of_the_map(dims: int, layout: Callable[[Tensor], Tensor]) -> None:
    norm: nn.Module = nn.InstanceNorm2d(8) if dims == 2 else nn.InstanceNorm3d(8)
    plain, fast = pair(Layer(norm, 5, 8, dims=dims).double().eval())
    x = layout(torch.randn(2, 8, *(8, 12, 10)[:dims], dtype=torch.float64))
    hot = one_hot(blocks(2, 5, (16, 24, 20)[:dims], 4), 5, torch.float64)
    for segmap in (hot, torch.randn_like(hot).softmax(1)):
        with torch.no_grad():
            assert_close(plain(x, layout(segmap)), fast(x, layout(segmap)), FLOAT64)


def test_an_empty_batch_and_maps_without_a_batch() -> None:
    plain, fast = pair(Network().eval())
    x, segmap = inputs()
    assert fast(x[:0], segmap[:0]).shape == plain(x[:0], segmap[:0]).shape

    class Unresized(Layer):
        def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
            hidden = F.relu(self.hidden(segmap))
            out: Tensor = self.norm(x) * (1 + self.gamma_of(hidden)) + self.beta_of(hidden)
            return out

    plain, fast = pair(Unresized(nn.InstanceNorm2d(8), 8, 8).eval())
    segmap = one_hot(blocks(1, 8, (6, 6), 2), 8)
    x = torch.randn(1, 8, 6, 6)
    expected = plain(x, segmap)
    assert_close(expected, fast(x, segmap), FLOAT32)
    assert_close(expected[0], fast(x[0], segmap[0]), FLOAT32)  # x [C, h, w] and the map [L, h, w]


def test_parameters_wider_than_x_give_a_wide_result() -> None:
    plain, fast = pair(Layer(nn.InstanceNorm2d(8), 5, 8).double().eval())
    x, segmap = inputs()
    out = fast(x, segmap.double())
    assert out.dtype == torch.float64
    assert_close(plain(x, segmap.double()), out, FLOAT32)


def test_autocast_does_not_round_the_classes() -> None:
    """bfloat16 holds the integers up to 256."""
    segmap = one_hot(torch.randint(0, 400, (1, 32, 32)), 400)
    with torch.autocast("cpu", torch.bfloat16):
        found = recognise(segmap)
    assert isinstance(found, SymbolMap)
    assert found.vectors is None


def test_arguments_by_name_in_any_order() -> None:
    plain, fast = pair(Layer(nn.InstanceNorm2d(8), 5, 8).eval())
    x, segmap = inputs(64)
    with FlopCounterMode(display=False) as counter:
        out = fast(segmap=segmap, x=x)
    assert_close(plain(x, segmap), out, FLOAT32)
    assert counter.get_total_flops() < flops(plain, x, segmap)


def test_a_large_map_of_distinct_patches_runs_the_layers_own_convs(caplog: pytest.LogCaptureFixture) -> None:
    plain, fast = pair(Layer(nn.InstanceNorm2d(8), 5, 8).eval())
    x, segmap = torch.randn(1, 8, 64, 64), one_hot(torch.randint(0, 5, (1, 64, 64)), 5)
    with torch.no_grad():
        assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)
        (record,) = caplog.records
        assert "another patch at nearly every pixel" in record.message
        with label_map(fast, segmap):  # drawn once, a codebook serves every later call
            fast(x, segmap)
            with FlopCounterMode(display=False) as counter:
                assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)
    assert counter.get_total_flops() == flops(plain, x, segmap)  # of `plain` alone


# ---- Training after inference, gradients of gradients ----


@pytest.mark.parametrize("kept", [False, True])
def test_a_map_seen_in_inference_mode_serves_training(kept: bool) -> None:
    plain, fast = pair(Network().eval())
    x, segmap = inputs()
    maps = [label_map(fast, segmap)] if kept else []
    for each in maps:
        each.__enter__()
    with torch.inference_mode():
        fast(x, segmap)
    grads = [torch.autograd.grad(model(x, segmap).sum(), list(model.parameters())) for model in (plain, fast)]
    for one, other in zip(*grads, strict=True):
        assert float((one - other).abs().max()) <= FLOAT32 * max(float(each.abs().max()) for each in grads[0])
    for each in maps:
        each.__exit__(None, None, None)


def test_a_network_made_in_inference_mode() -> None:
    with torch.inference_mode():
        plain, fast = pair(Network().eval())
        x, segmap = inputs()
        with label_map(fast, segmap):
            for _ in range(2):
                assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_gradient_penalty_has_the_same_gradients(dims: int, training: bool) -> None:
    plain, fast = pair(Network(dims).double().train(training))
    segmap = one_hot(blocks(1, 5, (16,) * dims, 4), 5, torch.float64)
    x = torch.randn(1, 8, *[8] * dims, dtype=torch.float64)
    grads = []
    for model in (plain, fast):
        given = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(given, segmap).square().sum(), given, create_graph=True)
        wanted = [given, *model.parameters()]
        grads.append(torch.autograd.grad(slope.square().sum(), wanted, allow_unused=True, materialize_grads=True))
    for one, other in zip(*grads, strict=True):
        assert float((one - other).abs().max()) <= FLOAT64 * max(float(each.abs().max()) for each in grads[0])


def test_a_spectral_norm_moves_on_once_a_call() -> None:
    """Each read of such a weight in training is a power iteration, also where a conv has no bias."""
    layer = Layer(nn.InstanceNorm2d(8), 5, 8)
    for conv in (layer.hidden, layer.gamma_of, layer.beta_of):
        conv.bias = None
        spectral_norm(conv)
    plain, fast = pair(layer)
    x, segmap = inputs()
    for _ in range(3):
        assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)


# ---- Changes that PyTorch does not count ----


@pytest.mark.parametrize("change", ["numpy", "data", "inference"])
def test_a_map_whose_memory_changes_unseen_is_looked_at_again(change: str) -> None:
    plain, fast = pair(Network().eval())
    x, segmap = inputs()
    other = inputs(seed=1)[1]
    with torch.no_grad(), torch.inference_mode(change == "inference"):
        segmap = segmap.clone()
        noisy = torch.cat([other[:, :-1], other[:, -1:] * 0.3], 1)  # one-hot no more
        for new in (segmap.clone(), other, noisy, other):
            if change == "numpy":
                segmap.numpy()[:] = new.numpy()
            else:
                segmap.data.copy_(new)
            assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)


def _by_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.5)


def _by_fused_optimiser(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(model.parameters(), lr=0.1, fused=True).step()


def _by_loading(model: nn.Module) -> None:
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})


def _by_assigning(model: nn.Module) -> None:
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()}, assign=True)


@pytest.mark.parametrize("change", [_by_data, _by_fused_optimiser, _by_loading, _by_assigning])
def test_kept_codebooks_follow_every_change_of_the_weights(change: Callable[[nn.Module], None]) -> None:
    plain, fast = pair(Network().eval())
    x, segmap = inputs()
    with label_map(fast, segmap):
        with torch.no_grad():
            before = fast(x, segmap)
        change(plain)
        change(fast)
        with torch.no_grad():
            expected = plain(x, segmap)
            assert not torch.allclose(before, expected)
            assert_close(expected, fast(x, segmap), FLOAT32)


# ---- Several maps, parts and copies ----


def test_nested_blocks_keep_the_codebooks_of_each_map() -> None:
    fast = accelerate(Network().eval())
    (x, one), (_, other) = inputs(), inputs(seed=1)
    with torch.no_grad(), label_map(fast, one):
        fast(x, one)
        with label_map(fast, other):
            fast(x, other)
            assert flops(fast, x, other) == flops(fast.conv, x)
        assert flops(fast, x, one) == flops(fast.conv, x)
    assert flops(fast, x, one) > flops(fast.conv, x)


@pytest.mark.parametrize("whole", [False, True])
def test_parts_that_were_accelerated_one_by_one(whole: bool) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Network(), Network()

        def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
            out: Tensor = self.two(self.one(x, segmap), segmap)
            return out

    plain = Both().eval()
    fast = copy.deepcopy(plain)
    accelerate(fast.one)
    accelerate(fast.two)
    if whole:
        accelerate(fast)
    x, segmap = inputs()
    with torch.no_grad(), label_map(fast, segmap):
        for _ in range(2):
            assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)
        assert flops(fast, x, segmap) == flops(fast.one.conv, x) + flops(fast.two.conv, fast.one(x, segmap))
    restore(fast.one)
    assert {name for name, part in fast.named_modules() if "forward" in part.__dict__} == {"two.one", "two.two"}


def test_a_replica_reads_its_own_parameters() -> None:
    """nn.DataParallel copies modules by their dictionaries, and gives the copies parameters on other devices."""
    fast = accelerate(Layer(nn.InstanceNorm2d(8), 5, 8).eval())
    replica: Any = fast._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
    for name, part in fast.named_children():
        replica._modules[name] = copy.deepcopy(part)
    nn.init.normal_(replica.gamma_of.weight)
    x, segmap = inputs()
    assert isinstance(replica.forward, CodebookForward)
    assert_close(Layer.forward(replica, x, segmap), replica(x, segmap), FLOAT32)
    assert_close(Layer.forward(fast, x, segmap), fast(x, segmap), FLOAT32)
    restore(fast)
    assert not {"forward", "_replicate_for_data_parallel"} & set(fast.__dict__)


def test_restore_puts_back_a_forward_that_was_set_before() -> None:
    layer = Layer(nn.InstanceNorm2d(8), 5, 8).eval()
    before = types.MethodType(Layer.forward, layer)
    layer.__dict__["forward"] = before
    assert isinstance(accelerate(layer).forward, CodebookForward)
    assert restore(layer).forward is before
    assert restore(layer).forward is before  # nothing is left to undo


# ---- Layers that do more than SPADE at times ----


class NoisyInTraining(Layer):
    """Adds a constant to x in training, in place of noise."""

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        return super().forward(x, segmap) + (1.0 if self.training else 0.0)


def test_a_layer_of_another_formula_in_training() -> None:
    plain, fast = pair(NoisyInTraining(nn.InstanceNorm2d(8), 5, 8))
    x, segmap = inputs(64)
    for training in (True, False):
        assert_close(plain.train(training)(x, segmap), fast.train(training)(x, segmap), FLOAT32)
    assert flops(fast, x, segmap) < flops(plain, x, segmap)


class Scaled(Layer):
    """A buffer that is 1 when the layer is looked at."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.strength = nn.Buffer(torch.ones(()))

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        out: Tensor = super().forward(x, segmap) * self.strength
        return out


def test_a_layer_with_a_buffer_in_its_formula_is_another() -> None:
    assert find_layers(Layer(nn.InstanceNorm2d(8), 5, 8))
    assert not find_layers(Scaled(nn.InstanceNorm2d(8), 5, 8))


class EverySecond(Layer):
    """Resizes by leaving pixels out, which is NEAREST for multiples alone."""

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        step = max(1, segmap.shape[2] // x.shape[2])
        return super().forward(x, segmap[:, :, ::step, ::step][:, :, : x.shape[2], : x.shape[3]])


def test_a_layer_that_resizes_by_another_rule() -> None:
    plain, fast = pair(EverySecond(nn.InstanceNorm2d(8), 5, 8).eval())
    x, segmap = torch.randn(1, 8, 6, 6), one_hot(torch.randint(0, 5, (1, 16, 16)), 5)
    assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)


def test_hooks_of_a_layers_parts_are_called() -> None:
    plain, fast = pair(Network().eval())
    x, segmap = inputs()
    for model in (plain, fast):
        hidden = model.get_submodule("one.hidden")
        hidden.register_forward_hook(lambda _module, _args, out: out * 2)
    assert_close(plain(x, segmap), fast(x, segmap), FLOAT32)


# ---- Calls that are recorded or transformed ----


def _traced(model: nn.Module, x: Tensor, segmap: Tensor) -> Callable[..., Any]:
    traced: Callable[..., Any] = torch.jit.trace(model, (x, segmap), check_trace=False)  # type: ignore[no-untyped-call]
    return traced


def _exported(model: nn.Module, x: Tensor, segmap: Tensor) -> Callable[..., Any]:
    return torch.export.export(model, (x, segmap)).module()


def _mapped(model: nn.Module, x: Tensor, segmap: Tensor) -> Callable[..., Any]:
    assert torch.func.vmap(model)(x[None], segmap[None]).shape[:2] == (1, len(x))
    return lambda x, segmap: torch.func.vmap(model)(x[None], segmap[None])[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("record", [_traced, _exported, _mapped])
def test_what_is_recorded_with_one_map_holds_for_others(record: Callable[..., Callable[..., Tensor]]) -> None:
    plain, fast = pair(Network().eval())
    x, segmap = inputs()
    with torch.no_grad():
        recorded = record(fast, x, segmap)
        other = inputs(seed=1)[1]
        assert_close(plain(x, other), recorded(x, other), FLOAT32)
