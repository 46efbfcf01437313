"""`accelerate` on the CUDA kernels: emulated on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.cuda.host.library import Library
from spade_core import accelerate, label_map
from spade_core.codebook import modulate as modulate_module
from spade_core.drop_in import fused_dense as dense_module
from spade_core.drop_in import norms as norms_module
from tests.kernels.cuda_emulated import emulated

__all__ = ["emulated"]

pytestmark = pytest.mark.usefixtures("seeded")

CHANNELS, CLASSES = 6, 5
# Sums of up to 27 * 128 terms and their gradients, in float32, against float64.
ERROR = 5e-5


class Spade(nn.Module):
    def __init__(self, norm: nn.Module, dims: int, channels_in: int = CLASSES) -> None:
        super().__init__()
        conv: Any = nn.Conv2d if dims == 2 else nn.Conv3d
        self.norm = norm
        self.shared = nn.Sequential(conv(channels_in, 16, 3, padding=1), nn.ReLU())
        self.gamma, self.beta = conv(16, CHANNELS, 3, padding=1), conv(16, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        hidden = self.shared(F.interpolate(segmap, size=x.shape[2:], mode="nearest"))
        out: Tensor = self.norm(x) * (1 + self.gamma(hidden)) + self.beta(hidden)
        return out


NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "batch with affine": lambda: nn.BatchNorm2d(CHANNELS),
    "instance": lambda: nn.InstanceNorm2d(CHANNELS),
    "group": lambda: nn.GroupNorm(2, CHANNELS),
    "batch 3D": lambda: nn.BatchNorm3d(CHANNELS, affine=False),
    "instance 3D": lambda: nn.InstanceNorm3d(CHANNELS),
}


@pytest.fixture
def calls(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Float32 maps are served by the emulated kernels, as CUDA maps are by the real ones. The calls of the kernels."""
    names: list[str] = []
    call = emulated.call

    def counting(op: str, *args: Any, **named: Any) -> Any:
        names.append(op)
        return call(op, *args, **named)

    monkeypatch.setattr(emulated, "call", counting)
    for module in (modulate_module, norms_module, dense_module):
        monkeypatch.setattr(module, "library_for", lambda x: emulated if x.dtype == torch.float32 else None)
    # On a GPU no norm is folded into PyTorch's operators on the CPU.
    monkeypatch.setattr(norms_module, "norm_as_affine", lambda *_: None)
    monkeypatch.setattr(dense_module, "norm_as_affine", lambda *_: None)
    return names


def one_hot(dims: int) -> Tensor:
    labels = torch.randint(0, CLASSES, (2, *[2] * dims))
    for axis in range(1, dims + 1):
        labels = labels.repeat_interleave(4, axis)
    return F.one_hot(labels, CLASSES).movedim(-1, 1).float().contiguous()


def results(model: nn.Module, x: Tensor, segmap: Tensor) -> list[Tensor]:
    """The result, the gradients at x and at the parameters, and the running statistics."""
    x = x.clone().requires_grad_()
    out = model(x, segmap)
    grads = torch.autograd.grad(out.square().mean(), [x, *model.parameters()])
    return [out.detach(), *grads, *(buffer.clone() for buffer in model.buffers())]


def assert_close(ours: list[Tensor], exact: list[Tensor]) -> None:
    assert len(ours) == len(exact)
    for one, other in zip(ours, exact, strict=True):
        largest = max(1e-3, float(other.double().abs().max()))
        assert torch.isfinite(one.double()).all()
        assert float((one.double().cpu() - other.double().cpu()).abs().max()) <= ERROR * largest


@pytest.mark.parametrize("kind", list(NORMS))
@pytest.mark.parametrize("training", [True, False])
def test_layers_run_on_the_kernels(kind: str, training: bool, calls: list[str]) -> None:
    dims = 3 if "3D" in kind else 2
    plain = Spade(NORMS[kind](), dims).train(training)
    fast = accelerate(copy.deepcopy(plain))
    segmap, x = one_hot(dims), torch.randn(2, CHANNELS, *[4] * dims)
    exact = results(copy.deepcopy(plain).double(), x.double(), segmap.double())
    assert not calls
    assert_close(results(fast, x, segmap), exact)
    assert "modulate_codebook" in calls
    assert any("backward" in name for name in calls)
    folded = kind == "instance" or (kind == "batch" and training)
    assert ("norm_statistics" in calls) == folded
    with torch.no_grad(), label_map(fast, segmap):
        for _ in range(2):
            assert_close([fast(x, segmap)], [copy.deepcopy(plain).double()(x.double(), segmap.double())])


@pytest.mark.parametrize("dims", [2, 3])
def test_features_run_the_dense_kernel(dims: int, calls: list[str]) -> None:
    norm: nn.Module = nn.InstanceNorm2d(CHANNELS) if dims == 2 else nn.InstanceNorm3d(CHANNELS)
    plain = Spade(norm, dims)
    fast = accelerate(copy.deepcopy(plain))
    features, x = torch.randn(2, CLASSES, *[16 if dims == 2 else 8] * dims), torch.randn(2, CHANNELS, *[4] * dims)
    exact = results(copy.deepcopy(plain).double(), x.double(), features.double())
    assert_close(results(fast, x, features), exact)
    assert "modulate_dense" in calls
    assert "modulate_dense_backward" in calls


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize("kind", list(NORMS))
@pytest.mark.parametrize("training", [True, False])
def test_layers_on_a_gpu(kind: str, training: bool) -> None:
    """On our kernels where they are built for this GPU, else on PyTorch's operators."""
    dims = 3 if "3D" in kind else 2
    plain = Spade(NORMS[kind](), dims).train(training)
    fast = accelerate(copy.deepcopy(plain)).cuda()
    segmap, x = one_hot(dims), torch.randn(2, CHANNELS, *[4] * dims)
    exact = results(copy.deepcopy(plain).double(), x.double(), segmap.double())
    assert_close(results(fast, x.cuda(), segmap.cuda()), exact)
    features = torch.randn(2, CLASSES, *[16] * dims)
    exact = results(copy.deepcopy(plain).double(), x.double(), features.double())
    assert_close(results(copy.deepcopy(fast), x.cuda(), features.cuda())[:1], exact[:1])
