"""Embed and codebook on CUDA. `embed_numpy` and `codebook_numpy` of the CPU kernels are their specification."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.cuda.library import CudaError, Library
from kernels.cuda.tensors import address, dtype_number, expect_shape, library_of, stream_of

HIDDEN = 128


@dataclass(frozen=True)
class DeviceRows:
    """A number of rows known on the device only: *last - *first, two elements of a plan's offsets."""

    first: Tensor
    last: Tensor


def embed(
    table: Tensor,
    bias: Tensor,
    patches: Tensor,
    out: Tensor,
    *,
    relu: bool,
    zero_row: bool,
    rows: DeviceRows | None = None,
    library: Library | None = None,
) -> None:
    """out = act(bias + sum over taps of table[tap][patches[:, tap]]).

    Args:
        table: T [taps, symbols + 1, D], the last row of each tap zero.
        bias: float32 [D].
        patches: int32 [U, taps], 0..symbols.
        out: T [U, D] or, with zero_row, [U + 1, D], out; the zeros lie behind the last row.
        rows: how many rows of patches there are; None: all.
    """
    library = library_of(table, library)
    taps, symbols, depth = table.shape[0], table.shape[1] - 1, table.shape[2]
    expect_shape("embed", "bias", bias, (depth,), torch.float32)
    expect_shape("embed", "patches", patches, (len(patches), taps), torch.int32)
    expect_shape("embed", "out", out, (len(patches) + int(zero_row), depth), table.dtype)
    _expect_contiguous("embed", table, bias, patches, out)
    library.call(
        "embed", stream_of(table), table=address(table), bias=address(bias), patches=address(patches), out=address(out),
        first_row=address(rows.first if rows else None), last_row=address(rows.last if rows else None),
        rows=len(patches), taps=taps, symbols=symbols, depth=depth, relu=relu, zero_row=zero_row,
        dtype=dtype_number(table),
    )  # fmt: skip


def codebook(
    actv: Tensor,
    patches: Tensor,
    weight: Tensor,
    bias: Tensor,
    entries: Tensor,
    *,
    products: Tensor | None = None,
    rows: DeviceRows | None = None,
    actv_rows: DeviceRows | None = None,
    library: Library | None = None,
) -> None:
    """entries = bias + gathered rows of actv x weight.

    Args:
        actv: T [U3 + 1, 128], the last row zero.
        patches: int32 [U5, taps], rows of actv.
        weight: T [taps * 128, 2C], a before b; for the per-tap form, `per_tap_weight` of it.
        bias: float32 [2C].
        entries: T [U5, 2C], out.
        products: float32 [U3 + 1, taps * 2C], scratch: takes the per-tap form, which multiplies every row of actv once
            per tap and sums gathered rows. None multiplies the gathered rows.
        rows, actv_rows: how many rows of patches, and of actv before its last, there are; None: all.
    """
    library = library_of(actv, library)
    taps, columns = patches.shape[1], len(bias)
    expect_shape("codebook", "actv", actv, (len(actv), HIDDEN), actv.dtype)
    expect_shape("codebook", "patches", patches, (len(patches), taps), torch.int32)
    expect_shape("codebook", "bias", bias, (columns,), torch.float32)
    shape = (taps * HIDDEN, columns) if products is None else (HIDDEN, taps * columns)
    expect_shape("codebook", "weight", weight, shape, actv.dtype)
    expect_shape("codebook", "entries", entries, (len(patches), columns), actv.dtype)
    if products is not None:
        expect_shape("codebook", "products", products, (len(actv), taps * columns), torch.float32)
    _expect_contiguous("codebook", actv, patches, weight, bias, entries)
    library.call(
        "codebook", stream_of(actv), actv=address(actv), patches=address(patches), weight=address(weight),
        bias=address(bias), entries=address(entries), products=address(products),
        first_row=address(rows.first if rows else None), last_row=address(rows.last if rows else None),
        first_actv_row=address(actv_rows.first if actv_rows else None),
        last_actv_row=address(actv_rows.last if actv_rows else None), rows=len(patches), actv_rows=len(actv), taps=taps,
        channels=columns // 2, dtype=dtype_number(actv),
    )  # fmt: skip


def per_tap_weight(weight: Tensor) -> Tensor:
    """[taps * 128, 2C] -> [128, taps * 2C], the weights of all taps side by side."""
    taps, columns = len(weight) // HIDDEN, weight.shape[1]
    return weight.view(taps, HIDDEN, columns).transpose(0, 1).reshape(HIDDEN, taps * columns).contiguous()


def _expect_contiguous(op: str, *tensors: Tensor) -> None:
    for tensor in tensors:
        if not tensor.is_contiguous():
            raise CudaError(f"[{op}] expected contiguous tensors but got one {list(tensor.shape)} of strides "
                            f"{list(tensor.stride())}")  # fmt: skip
