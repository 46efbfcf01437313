"""The emulated CUDA kernels of embed and codebook against their specification in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerances import assert_within, gamma, stored_bound
from torch import Tensor

from kernels.constants import HIDDEN
from kernels.cuda.codebook.codebook import Codebook, DeviceRows, Embed, codebook, embed, per_tap_weight
from kernels.cuda.host.library import DTYPES, CudaError, Library
from kernels.ops.codebook import codebook_numpy
from kernels.ops.embed import embed_numpy

each_dtype = pytest.mark.parametrize("dtype", list(DTYPES))
# An A100 multiplies in three stages, Hopper with warpgroup products, and an A10 in two stages.
# test_cuda_targets.py runs every GPU.
each_path = pytest.mark.parametrize("path", [80, 90], ids=["three stages", "wgmma"], indirect=True)
each_stage = pytest.mark.parametrize(
    ("dtype", "path"),
    [("float16", 86), ("float16", 80), ("float16", 90), ("float32", 80)],
    ids=["two stages", "three stages", "wgmma", "float32"],
    indirect=["path"],
)


@pytest.fixture
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compute capability of the emulated GPU."""
    monkeypatch.setenv("SPADE_EMULATOR_TARGET", str(request.param))


def normal(random: torch.Generator, *shape: int, dtype: str = "float32") -> Tensor:
    return torch.randn(shape, generator=random).to(getattr(torch, dtype))


def device_rows(rows: int) -> DeviceRows:
    offsets = torch.tensor([5, 5 + rows], dtype=torch.int32)
    return DeviceRows(offsets[:1], offsets[1:])


@each_dtype
@pytest.mark.parametrize("depth", [128, 24, 5])
@pytest.mark.parametrize("zero_row", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_embed(emulated: Library, dtype: str, depth: int, zero_row: bool, relu: bool) -> None:
    random = torch.Generator().manual_seed(depth)
    table, bias = normal(random, 9, 8, depth, dtype=dtype), normal(random, depth)
    table[:, -1] = 0
    patches = torch.randint(0, 8, (37, 9), generator=random, dtype=torch.int32)
    out = torch.full((37 + zero_row, depth), torch.nan).to(table.dtype)
    embed(Embed(table, bias, patches, out, relu=relu, zero_row=zero_row), library=emulated)
    arrays = table.double().numpy(), bias.double().numpy(), patches.numpy()
    expected = embed_numpy(*arrays, relu=relu, zero_row=zero_row)
    sizes = embed_numpy(np.abs(arrays[0]), np.abs(arrays[1]), arrays[2], relu=False, zero_row=zero_row)
    assert_within(out.double(), expected, stored_bound(gamma(10) * sizes, expected, dtype))
    again = torch.full_like(out, 7)
    embed(Embed(table, bias, patches, again, relu=relu, zero_row=zero_row, rows=device_rows(20)), library=emulated)
    assert torch.equal(again[:20], out[:20])
    assert (again[20 : 20 + zero_row] == 0).all()
    assert (again[20 + zero_row :] == 7).all()


@each_dtype
@each_path
@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("per_tap", [False, True])
@pytest.mark.parametrize(
    ("rows", "actv_rows", "channels", "taps"),
    [(1, 1, 32, 1), (1, 2, 5, 9), (7, 3, 64, 9), (130, 14, 4, 9), (140, 150, 132, 1)],
)
def test_codebook(
    emulated: Library, dtype: str, per_tap: bool, rows: int, actv_rows: int, channels: int, taps: int
) -> None:
    random = torch.Generator().manual_seed(rows + channels)
    actv = normal(random, actv_rows, HIDDEN, dtype=dtype).relu()
    actv[-1] = 0
    patches = torch.randint(0, actv_rows, (rows, taps), generator=random, dtype=torch.int32)
    weight, bias = normal(random, 2 * channels, taps * HIDDEN, dtype=dtype), normal(random, 2 * channels)
    room = torch.full((64 + rows * 2 * channels + 64,), 7).to(actv.dtype)
    entries = room[64:-64].view(rows, 2 * channels)
    products = torch.empty(actv_rows, taps * 2 * channels) if per_tap else None
    across = per_tap_weight(weight) if per_tap else weight
    codebook(Codebook(actv, patches, across, bias, entries, products), library=emulated)
    arrays = actv.double().numpy(), patches.numpy(), weight.T.double().numpy(), bias.double().numpy()
    expected = codebook_numpy(*arrays)
    sizes = codebook_numpy(np.abs(arrays[0]), arrays[1], np.abs(arrays[2]), np.abs(arrays[3]))
    bound = stored_bound(gamma(taps * HIDDEN + taps) * sizes, expected, dtype)
    assert_within(entries.double(), expected, bound)
    assert (room[:64] == 7).all()
    assert (room[-64:] == 7).all()


@each_path
@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("per_tap", [False, True])
def test_codebook_of_rows_counted_on_the_device(emulated: Library, per_tap: bool) -> None:
    random = torch.Generator().manual_seed(1)
    actv = normal(random, 41, HIDDEN, dtype="bfloat16")
    patches = torch.randint(0, 31, (300, 9), generator=random, dtype=torch.int32)
    weight, bias = normal(random, 16, 9 * HIDDEN, dtype="bfloat16"), normal(random, 16)
    weight = per_tap_weight(weight) if per_tap else weight
    products = torch.empty(41, 9 * 16) if per_tap else None
    whole, part = torch.zeros(2, 300, 16, dtype=torch.bfloat16)
    codebook(Codebook(actv, patches, weight, bias, whole, products), library=emulated)
    counted = Codebook(actv, patches, weight, bias, part, products, device_rows(137), device_rows(30))
    codebook(counted, library=emulated)
    assert torch.equal(part[:137], whole[:137])
    assert (part[137:] == 0).all()


@each_dtype
@each_path
@pytest.mark.usefixtures("path")
def test_many_problems_in_one_call(emulated: Library, dtype: str) -> None:
    random = torch.Generator().manual_seed(3)
    counts = torch.tensor([0, 5, 5, 150, 151], dtype=torch.int32)  # problems 0 .. 3 have 5, 0, 145 and 1 rows
    codebooks, embeds = [], []
    for i in range(35):
        rows = DeviceRows(counts[i : i + 1], counts[i + 1 : i + 2]) if i < 4 else None
        channels, room = (4, 20, 132, 8)[i % 4], (150, 12, 3, 0)[i % 4] + i
        patches = torch.randint(0, 9, (room, 1), generator=random, dtype=torch.int32)
        actv = normal(random, 10, HIDDEN, dtype=dtype)
        weight, bias = normal(random, 2 * channels, HIDDEN, dtype=dtype), normal(random, 2 * channels)
        entries = torch.zeros(room, 2 * channels).to(actv.dtype)
        codebooks.append(Codebook(actv, patches, weight, bias, entries, rows=rows))
        table, out = normal(random, 1, 9, HIDDEN, dtype=dtype), torch.zeros(room + 1, HIDDEN).to(actv.dtype)
        embeds.append(Embed(table, normal(random, HIDDEN), patches, out, relu=True, zero_row=True, rows=rows))
    alone = [replace(problem, entries=torch.zeros_like(problem.entries)) for problem in codebooks]
    alone_embeds = [replace(problem, out=torch.zeros_like(problem.out)) for problem in embeds]
    codebook(*codebooks, library=emulated)
    embed(*embeds, library=emulated)
    for one in alone:
        codebook(one, library=emulated)
    for each in alone_embeds:
        embed(each, library=emulated)
    assert all(torch.equal(problem.entries, one.entries) for problem, one in zip(codebooks, alone, strict=True))
    assert all(torch.equal(problem.out, each.out) for problem, each in zip(embeds, alone_embeds, strict=True))
    assert [int((problem.entries != 0).any(1).sum()) for problem in codebooks[:4]] == [
        5,
        0,
        5,
        1,
    ]  # the third has room for 5


@each_stage
@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("setting", ["ORDER reverse", "ORDER warps", "LATE copies", "LATE products"])
def test_the_order_of_threads_and_late_copies_or_products_change_no_bit(
    emulated: Library, dtype: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(2)
    actv = normal(random, 20, HIDDEN, dtype=dtype)
    patches = torch.randint(0, 20, (150, 9), generator=random, dtype=torch.int32)
    weight, bias = normal(random, 40, 9 * HIDDEN, dtype=dtype), normal(random, 40)
    first, second = torch.zeros(2, 150, 40, dtype=actv.dtype)
    codebook(*[Codebook(actv, patches, weight, bias, first)] * 2, library=emulated)
    name, value = setting.split()
    monkeypatch.setenv(f"SPADE_EMULATOR_{name}", value)
    codebook(*[Codebook(actv, patches, weight, bias, second)] * 2, library=emulated)
    assert torch.equal(first, second)


def test_bad_arguments_are_named(emulated: Library) -> None:
    actv, patches = torch.zeros(3, HIDDEN), torch.zeros((2, 9), dtype=torch.int32)
    weight, bias, entries = torch.zeros(8, 9 * HIDDEN), torch.zeros(8), torch.zeros(2, 8)
    with pytest.raises(CudaError, match=r"\[codebook\] expected weight torch.float32 \[8, 1152\] but got .*\[7, 1152"):
        codebook(Codebook(actv, patches, weight[:-1], bias, entries), library=emulated)
    with pytest.raises(CudaError, match=r"expected contiguous tensors but got one \[2, 8\] of strides \[1, 2\]"):
        codebook(Codebook(actv, patches, weight, bias, torch.zeros(8, 2).T), library=emulated)
    unaligned = torch.zeros(3 * HIDDEN + 1)[1:].view(3, HIDDEN)
    with pytest.raises(CudaError, match=r"\[codebook\] a pointer is not aligned"):
        codebook(Codebook(unaligned, patches, weight, bias, entries), library=emulated)
    with pytest.raises(CudaError, match=r"\[embed\] expected out torch.float32 \[3, 8\] but got .* \[2, 8\]"):
        embed(Embed(torch.zeros(9, 4, 8), bias, patches, entries, relu=True, zero_row=True), library=emulated)
