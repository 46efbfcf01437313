"""The emulated CUDA kernels of the codebook form against their specification in NumPy."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from cuda_emulated import each_order
from tolerances import assert_within, gamma, stored_bound
from torch import Tensor

from kernels.cuda.host.library import DTYPES, CudaError, Layout, Library, Place
from kernels.cuda.host.tensors import in_layout
from kernels.cuda.modulate.modulate_codebook import (
    Modulation,
    modulate_codebook,
    modulate_codebook_backward,
    modulate_codebook_backward_torch,
    modulate_codebook_torch,
    sort_index,
)
from kernels.cuda.norm.norm import Statistics
from kernels.ops.modulate import modulate_numpy

each_dtype = pytest.mark.parametrize("dtype", list(DTYPES))
PLAIN = Modulation()
each_layout = pytest.mark.parametrize("layout", ["nchw", "nhwc"])


def random_case(
    dtype: str, size: tuple[int, int, int], channels: int, layout: Layout, *, shift: int = 0, rows: int = 6
) -> tuple[Tensor, Tensor, Tensor]:
    """(x, entries, index): x [N, C, H >> shift, W >> shift] in the layout."""
    random = torch.Generator().manual_seed(channels * size[2] + size[1])
    n, height, width = size
    kind = getattr(torch, dtype)
    x = torch.randn(n, channels, height >> shift, width >> shift, generator=random).to(kind)
    entries = torch.randn(rows, 2 * channels, generator=random).to(kind)
    index = torch.randint(0, rows, size, generator=random, dtype=torch.int32)
    return in_layout(x, layout), entries, index


def check(
    library: Library, dtype: str, case: tuple[Tensor, Tensor, Tensor], how: Modulation = PLAIN,
) -> None:  # fmt: skip
    x, entries, index = case
    out = modulate_codebook(x, entries, index, how, library=library)
    given, shift, leaky = how.statistics, how.shift, how.leaky
    wide = [t.expand(len(x), -1).double().numpy() for t in (given.mean, given.rstd)] if given else [None, None]
    a, b = entries.double().chunk(2, dim=1)
    arrays = [t.numpy() for t in (x.double(), a, b, index)]
    expected = modulate_numpy(*arrays, mean=wide[0], rstd=wide[1], shift=shift, leaky=leaky)
    sizes = modulate_numpy(
        *(np.abs(t) for t in arrays[:3]), arrays[3], shift=shift, leaky=False,
        mean=None if wide[0] is None else -np.abs(wide[0]), rstd=wide[1],
    )  # fmt: skip
    # Four roundings (subtract, scale, multiply and add, slope), then the rounding to T.
    assert_within(out.double().numpy(), expected, stored_bound(gamma(4) * sizes, expected, dtype))
    assert out.shape == expected.shape
    assert out.dtype == x.dtype


@each_dtype
@each_layout
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (2, 3, 7), (3, 2, 12), (1, 5, 33)])
@pytest.mark.parametrize("channels", [1, 5, 8, 40, 96])
def test_every_size(
    emulated: Library, dtype: str, layout: Layout, size: tuple[int, int, int], channels: int
) -> None:  # fmt: skip
    check(emulated, dtype, random_case(dtype, size, channels, layout))


@each_dtype
@each_layout
@pytest.mark.parametrize("channels", [6, 32])
@pytest.mark.parametrize("norm", ["none", "image", "batch"])
@pytest.mark.parametrize("leaky", [True, False])
@pytest.mark.parametrize("shift", [0, 1])
def test_every_variant(
    emulated: Library, dtype: str, layout: Layout, channels: int, norm: str, leaky: bool, shift: int
) -> None:
    statistics = None
    if norm != "none":
        random = torch.Generator().manual_seed(1)
        statistics = Statistics(*(torch.rand(2, 2 if norm == "image" else 1, channels, generator=random) + 0.5))
    case = random_case(dtype, (2, 4, 6), channels, layout, shift=shift)
    check(emulated, dtype, case, Modulation(statistics, shift, leaky))


@each_layout
@pytest.mark.parametrize("channels", [64, 1040, 3])
def test_more_work_than_threads_goes_round(emulated: Library, layout: Layout, channels: int) -> None:
    check(emulated, "float16", random_case("float16", (2, 24, 34), channels, layout, rows=50))
    check(
        emulated,
        "float16",
        random_case("float16", (2, 24, 34), channels, layout, shift=1, rows=50),
        Modulation(shift=1),
    )


@each_layout
def test_addresses_that_are_not_multiples_of_16_bytes(emulated: Library, layout: Layout) -> None:
    x, entries, index = random_case("float16", (1, 4, 6), 16, layout)
    shifted = torch.empty(entries.numel() + 1, dtype=entries.dtype)[1:].view_as(entries).copy_(entries)
    assert shifted.data_ptr() % 16 == 2
    expected = modulate_codebook(x, entries, index, library=emulated)
    assert torch.equal(modulate_codebook(x, shifted, index, library=emulated), expected)


@each_layout
@pytest.mark.parametrize("shift", [0, 1])
def test_nothing_is_written_beside_the_output(emulated: Library, layout: Layout, shift: int) -> None:
    x, entries, index = random_case("float16", (2, 6, 10), 24, layout, shift=shift)
    room = torch.full((64 + 2 * 24 * 60 + 64,), 7.0, dtype=torch.float16)
    inside = room[64:-64]
    out = inside.view(2, 24, 6, 10) if layout == "nchw" else inside.view(2, 6, 10, 24).permute(0, 3, 1, 2)
    how = Modulation(shift=shift)
    modulate_codebook(x, entries, index, how, out=out, library=emulated)
    assert (room[:64] == 7).all()
    assert (room[-64:] == 7).all()
    assert torch.equal(out, modulate_codebook(x, entries, index, how, library=emulated))


@each_layout
@pytest.mark.parametrize("shift", [0, 1])
def test_an_index_that_is_no_row_is_taken_for_the_last(emulated: Library, layout: Layout, shift: int) -> None:
    x, entries, index = random_case("float32", (1, 4, 10), 8, layout, shift=shift)
    index[0, 0, :4] = torch.tensor(NO_ROWS_OF_6)
    how = Modulation(shift=shift)
    expected = modulate_codebook(x, entries, clamped(index), how, library=emulated)
    assert torch.equal(modulate_codebook(x, entries, index, how, library=emulated), expected)


# Values of an index into 6 entries that are no row of them.
NO_ROWS_OF_6 = [6, 2**31 - 1, -1, -(2**31)]


def clamped(index: Tensor) -> Tensor:
    """An index into 6 entries in which the last row stands for every value that is no row."""
    return torch.where((index < 0) | (index > 5), 5, index)


@pytest.mark.parametrize("sorted_sums", [True, False])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("channels", [3, 8])
def test_gradients_take_an_index_that_is_no_row_for_the_last(
    emulated: Library, sorted_sums: bool, shift: int, channels: int
) -> None:
    """Sums of small integers are exact, so their order changes no bit; the last row's sums cross several chunks."""
    random = torch.Generator().manual_seed(channels)
    x, entries, dy = (
        torch.randint(-3, 4, shape, generator=random).float()
        for shape in ((2, channels, 16 >> shift, 20 >> shift), (6, 2 * channels), (2, channels, 16, 20))
    )
    index = torch.randint(0, 6, (2, 16, 20), generator=random, dtype=torch.int32)
    bad = torch.tensor(NO_ROWS_OF_6, dtype=torch.int32)
    index[:, ::2, :12] = bad[torch.randint(0, 4, (2, 8, 12), generator=random)]
    how = Modulation(shift=shift, leaky=False)
    order = sort_index(index) if sorted_sums else None
    got = modulate_codebook_backward(x, entries, index, dy, how, order=order, library=emulated)
    expected = modulate_codebook_backward_torch(x, entries, clamped(index), dy, how)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@each_layout
@each_order
def test_the_order_of_threads_changes_no_bit(
    emulated: Library, layout: Layout, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, entries, index = random_case("float32", (2, 8, 34), 40, layout)
    first = modulate_codebook(x, entries, index, library=emulated)
    monkeypatch.setenv("SPADE_EMULATOR_ORDER", order)
    assert torch.equal(modulate_codebook(x, entries, index, library=emulated), first)


def test_both_specifications_agree() -> None:
    x, entries, index = random_case("float32", (2, 4, 6), 5, "nhwc", shift=1)
    mean, rstd = torch.rand(2, 2, 5) + 0.5
    how = Modulation(Statistics(mean.double(), rstd.double()), shift=1)
    a, b = entries.double().chunk(2, dim=1)
    expected = modulate_numpy(
        x.double().numpy(), a.numpy(), b.numpy(), index.numpy(), mean=mean.numpy(), rstd=rstd.numpy(), shift=1
    )
    out = modulate_codebook_torch(x.double(), entries.double(), index, how)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12)


def test_bad_arguments_are_named(emulated: Library) -> None:
    x, entries, index = random_case("float16", (1, 4, 6), 8, "nhwc")
    with pytest.raises(CudaError, match=r"\[modulate_codebook\] expected shift 0, or 1 with even sizes, but got 2 for"):
        modulate_codebook(x, entries, index, Modulation(shift=2), library=emulated)
    with pytest.raises(CudaError, match=r"expected index torch.int32 \[1, 4, 6\] but got torch.int64"):
        modulate_codebook(x, entries, index.long(), library=emulated)
    with pytest.raises(CudaError, match=r"expected entries torch.float16 \[6, 16\] but got torch.float32 \[6, 16\]"):
        modulate_codebook(x, entries.float(), index, library=emulated)
    with pytest.raises(CudaError, match=r"expected a tensor of float32, float16, bfloat16 but got torch.float64"):
        modulate_codebook(x.double(), entries.double(), index, library=emulated)
    statistics = Statistics(torch.zeros(8), torch.ones(8))
    with pytest.raises(CudaError, match=r"expected statistics float32 \[1, 8\] or .* but got torch.float32 \[8\]"):
        modulate_codebook(x, entries, index, Modulation(statistics), library=emulated)


def test_the_backward_names_its_own_bad_arguments(emulated: Library) -> None:
    x, entries, index = random_case("float16", (1, 4, 6), 8, "nhwc")
    strided = index.mT.contiguous().mT
    with pytest.raises(CudaError, match=r"\[modulate_codebook_backward\] expected contiguous entries and index"):
        modulate_codebook_backward(x, entries, strided, x, library=emulated)
    with pytest.raises(CudaError, match=r"\[modulate_codebook_backward\] expected dy torch.float16 \[1, 8, 4, 6\]"):
        modulate_codebook_backward(x, entries, index, x[..., :3], library=emulated)
    with pytest.raises(CudaError, match=r"\[modulate_codebook_backward\] expected shift 0, or 1 .* got 2"):
        modulate_codebook_backward(x, entries, index, x, Modulation(shift=2), library=emulated)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"out": None}, "a required pointer, or one of a pair, is null"),
        ({"mean": 16}, "a required pointer, or one of a pair, is null"),
        ({"dtype": 3}, "the dtype is not float32"),
        ({"layout": 2}, "the layout is not NCHW"),
        ({"height": 0}, "a size is below 1"),
        ({"n": 2**20, "height": 2**6, "width": 2**6}, "above its limit"),
        ({"shift": 1, "width": 5}, "a size is below 1, above its limit, or does not fit another; got .*width=5"),
        ({"rows": 0}, "a size is below 1"),
        ({"x": 17}, "a pointer is not aligned to its element"),
    ],
)
def test_the_library_refuses_what_it_cannot_run(emulated: Library, change: dict[str, int | None], text: str) -> None:
    memory = ctypes.create_string_buffer(4096)
    at = ctypes.addressof(memory)
    arguments = {
        "x": at, "entries": at, "index": at, "out": at, "rows": 1, "n": 1, "height": 2, "width": 2, "channels": 2,
        "layout": 1,
    }  # fmt: skip
    with pytest.raises(CudaError, match=rf"\[modulate_codebook\] .*{text}"):
        emulated.call("modulate_codebook", Place(), **(arguments | change))
