"""`modulate` on the CUDA kernels, run on the CPU, computes what `modulate` computes on PyTorch's operators."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kernels.cuda.host.library import CudaError, Library
from spade_core.codebook import modulate as modulate_module
from spade_core.codebook import on_cuda
from spade_core.codebook.modulate import ByEntry, by_entry, modulate
from tests.kernels.cuda_emulated import emulated
from tests.kernels.tolerances import assert_within, normalised_rounding, stored_bound

__all__ = ["emulated"]

CHANNELS, ROWS = 6, 7
PIXELS = 2 * 5 * 8
LARGEST = 40  # of every value and sum below


class Halves(nn.Module):
    """A norm that the kernels do not know."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


NORMS: dict[str, Callable[[], nn.Module | None]] = {
    "none": lambda: None,
    "batch": lambda: nn.BatchNorm2d(CHANNELS, affine=False, eps=1e-3),
    "batch, cumulative": lambda: nn.BatchNorm2d(CHANNELS, affine=False, momentum=None),
    "batch, in eval mode": lambda: nn.BatchNorm2d(CHANNELS, affine=False).eval(),
    "instance": lambda: nn.InstanceNorm2d(CHANNELS),
    "another": Halves,
}


@pytest.fixture
def on_kernels(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serves float32 and bfloat16 maps by the emulated kernels; float64 stays with PyTorch's operators."""
    monkeypatch.setattr(
        modulate_module, "library_for", lambda x: emulated if x.dtype in (torch.float32, torch.bfloat16) else None
    )


def inputs(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, entries, index and the gradient of the output."""
    random = torch.Generator().manual_seed(seed)
    x = (1 + 2 * torch.randn(2, CHANNELS, 5, 8, generator=random)).to(dtype)
    entries = torch.randn(ROWS, 2 * CHANNELS, generator=random).to(dtype)
    index = torch.randint(0, ROWS, (2, 5, 8), generator=random, dtype=torch.int32)
    return x, entries, index, torch.randn(2, CHANNELS, 5, 8, generator=random).to(dtype)


def run(
    x: Tensor, entries: Tensor, index: Tensor, dy: Tensor, norm: nn.Module | None, order: ByEntry | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The output and the gradients at x and at the entries of the second of two steps."""
    x, entries = x.clone().requires_grad_(), entries.clone().requires_grad_()
    with torch.enable_grad():
        modulate(x.detach() * 2, entries.detach(), index, norm, order)
        out = modulate(x, entries, index, norm, order)
        dx, dentries = torch.autograd.grad(out, (x, entries), dy)
    return out.detach(), dx, dentries


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", list(NORMS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_output_gradients_and_running_statistics(kind: str, dtype: torch.dtype, channels_last: bool) -> None:
    x, entries, index, dy = inputs(len(kind), dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    norm = NORMS[kind]()
    twin = copy.deepcopy(norm) if norm is None else copy.deepcopy(norm).double()
    ours = run(x, entries, index, dy, norm, by_entry(index, ROWS))
    expected = run(x.double(), entries.double(), index, dy.double(), twin)
    name = str(dtype).removeprefix("torch.")
    rounding = normalised_rounding(PIXELS, name, stored=2)
    for what, got, exact in zip(("out", "dx", "dentries"), ours, expected, strict=True):
        assert got.dtype == dtype, what
        assert_within(got.double(), exact, stored_bound(rounding * LARGEST, exact, name))
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    if norm is None or twin is None:
        return
    for key, tensor in twin.state_dict().items():  # statistics are float32 whatever x is
        found, bound = norm.state_dict()[key], normalised_rounding(PIXELS) * LARGEST
        assert_within(found.double(), tensor.double(), torch.full_like(tensor, bound, dtype=torch.float64))


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", ["none", "batch"])
def test_without_an_order_the_index_is_sorted_here(kind: str) -> None:
    x, entries, index, dy = inputs(3, torch.float32)
    given = run(x, entries, index, dy, NORMS[kind](), by_entry(index, ROWS))
    sorted_here = run(x, entries, index, dy, NORMS[kind]())
    for one, other in zip(given, sorted_here, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("on_kernels")
def test_entries_of_another_precision_than_the_map() -> None:
    """Autocast makes maps bfloat16; the gradient at float32 entries is float32 again."""
    x, entries, index, dy = inputs(4, torch.bfloat16)
    wide = run(x, entries.float(), index, dy, NORMS["batch"]())
    narrow = run(x, entries, index, dy, NORMS["batch"]())
    assert wide[0].dtype == torch.bfloat16
    assert wide[2].dtype == torch.float32
    assert torch.equal(wide[0], narrow[0])
    assert torch.equal(wide[2].bfloat16(), narrow[2])


@pytest.mark.usefixtures("on_kernels")
def test_without_gradients_the_running_statistics_move_too() -> None:
    x, entries, index, dy = inputs(5, torch.float32)
    graded, plain = NORMS["batch"](), NORMS["batch"]()
    assert graded is not None
    assert plain is not None
    out = run(x, entries, index, dy, graded)[0]
    with torch.no_grad():
        modulate(x * 2, entries, index, plain)
        assert torch.equal(modulate(x, entries, index, plain), out)
    for key, tensor in graded.state_dict().items():
        assert torch.equal(plain.state_dict()[key], tensor), key


class OnDevice:
    """As much of a map as `library_for` asks for."""

    is_cuda, dtype = True, torch.float32


def test_without_kernels_the_log_says_why_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent() -> Library:
        raise CudaError("[cuda] this library was built without CUDA")

    monkeypatch.setattr(on_cuda, "installed", absent)
    on_cuda._installed.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert on_cuda.library_for(OnDevice()) is None  # type: ignore[arg-type]
        assert on_cuda.library_for(OnDevice()) is None  # type: ignore[arg-type]
    on_cuda._installed.cache_clear()
    assert [record.message for record in caplog.records] == [
        "the modulation of SPADE's norms runs on PyTorch's operators: [cuda] this library was built without CUDA"
    ]


def test_a_gpu_that_refuses_the_kernels_is_told_too(
    emulated: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(op: str, *_: object, **__: object) -> None:
        raise CudaError(f"[{op}] CUDA refused the launch: no kernel image is available")

    monkeypatch.setattr(on_cuda, "installed", lambda: emulated)
    monkeypatch.setattr(emulated, "call", refuse)
    on_cuda._installed.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert on_cuda.library_for(OnDevice()) is None  # type: ignore[arg-type]
    on_cuda._installed.cache_clear()
    assert "[norm_statistics] CUDA refused the launch: no kernel image is available" in caplog.text


def test_the_kernels_serve_cuda_maps_of_their_dtypes(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cuda, "installed", lambda: emulated)
    on_cuda._installed.cache_clear()
    served = OnDevice()
    assert on_cuda.library_for(served) is emulated  # type: ignore[arg-type]
    served.dtype = torch.float64
    assert on_cuda.library_for(served) is None  # type: ignore[arg-type]
    assert on_cuda.library_for(torch.zeros(1)) is None
    on_cuda._installed.cache_clear()
