"""Embed and codebook on CUDA, the norms of a generator in one launch.

`embed_numpy` and `codebook_numpy` in `kernels.ops` are the specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.constants import HIDDEN
from kernels.cuda.host.library import Argument, Library
from kernels.cuda.host.tensors import address, dtype_number, expect_contiguous, expect_shape, library_of, place_of


@dataclass(frozen=True)
class DeviceRows:
    """A number of rows known on the device only: *last - *first, two elements of a plan's offsets."""

    first: Tensor
    last: Tensor


@dataclass(frozen=True)
class Embed:
    """One embed: out = act(bias + sum over taps of table[tap][patches[:, tap]]).

    Attributes:
        table: T [taps, symbols + 1, D]; the last row of each tap is zero.
        bias: float32 [D].
        patches: int32 [U, taps], 0..symbols.
        out: T [U, D] or, with zero_row, [U + 1, D], out; the last row is then zero.
        rows: how many rows of patches are used; None: all.
    """

    table: Tensor
    bias: Tensor
    patches: Tensor
    out: Tensor
    relu: bool
    zero_row: bool
    rows: DeviceRows | None = None


@dataclass(frozen=True)
class Codebook:
    """One codebook: entries = bias + gathered rows of actv x weight^T.

    Attributes:
        actv: T [U3 + 1, 128]; the last row is zero.
        patches: int32 [U5, taps], rows of actv.
        weight: T [2C, taps * 128], a before b; for the per-tap form, what `per_tap_weight` makes of it.
        bias: float32 [2C].
        entries: T [U5, 2C], out.
        products: float32 [U3 + 1, taps * 2C], scratch of the per-tap form, which multiplies every row of actv once per
            tap and sums gathered rows of the products. None: multiply gathered rows of actv.
        rows, actv_rows: how many rows of patches, and of actv before its last row, are used; None: all.
    """

    actv: Tensor
    patches: Tensor
    weight: Tensor
    bias: Tensor
    entries: Tensor
    products: Tensor | None = None
    rows: DeviceRows | None = None
    actv_rows: DeviceRows | None = None


def embed(*problems: Embed, library: Library | None = None) -> None:
    """Run embeds of one dtype in one launch; none may read what another writes. Raises CudaError."""
    library = library_of(problems[0].table, library)
    place = place_of("embed", problems[0].table, *(tensor for one in problems for tensor in _tensors(one)))
    library.call_grouped("embed", place, [_embed_arguments(problem) for problem in problems])


def codebook(*problems: Codebook, library: Library | None = None) -> None:
    """Run codebooks of one dtype in one launch; none may read what another writes. Raises CudaError."""
    library = library_of(problems[0].actv, library)
    place = place_of("codebook", problems[0].actv, *(tensor for one in problems for tensor in _tensors(one)))
    library.call_grouped("codebook", place, [_codebook_arguments(one) for one in problems])


def _tensors(one: Embed | Codebook) -> Iterator[Tensor]:
    counts = [one.rows] if isinstance(one, Embed) else [one.rows, one.actv_rows]
    for value in [*vars(one).values(), *(count.last for count in counts if count is not None)]:
        if isinstance(value, Tensor):
            yield value


def per_tap_weight(weight: Tensor) -> Tensor:
    """[2C, taps * 128] -> [taps * 2C, 128]: the weights of all taps below each other."""
    return weight.view(len(weight), -1, HIDDEN).transpose(0, 1).reshape(-1, HIDDEN).contiguous()


def _embed_arguments(one: Embed) -> dict[str, Argument]:
    taps, symbols, depth = one.table.shape[0], one.table.shape[1] - 1, one.table.shape[2]
    rows = len(one.patches)
    expect_shape("embed", "bias", one.bias, (depth,), torch.float32)
    expect_shape("embed", "patches", one.patches, (rows, taps), torch.int32)
    expect_shape("embed", "out", one.out, (rows + int(one.zero_row), depth), one.table.dtype)
    expect_contiguous("embed", one.table, one.bias, one.patches, one.out)
    first, last = _row_addresses(one.rows)
    return {
        "table": address(one.table), "bias": address(one.bias), "patches": address(one.patches),
        "out": address(one.out), "first_row": first, "last_row": last, "rows": rows, "taps": taps, "symbols": symbols,
        "depth": depth, "relu": one.relu, "zero_row": one.zero_row, "dtype": dtype_number(one.table),
    }  # fmt: skip


def _codebook_arguments(one: Codebook) -> dict[str, Argument]:
    actv, products = one.actv, one.products
    (rows, taps), columns = one.patches.shape, len(one.bias)
    expect_shape("codebook", "actv", actv, (len(actv), HIDDEN), actv.dtype)
    expect_shape("codebook", "patches", one.patches, (rows, taps), torch.int32)
    expect_shape("codebook", "bias", one.bias, (columns,), torch.float32)
    shape = (columns, taps * HIDDEN) if products is None else (taps * columns, HIDDEN)
    expect_shape("codebook", "weight", one.weight, shape, actv.dtype)
    expect_shape("codebook", "entries", one.entries, (rows, columns), actv.dtype)
    if products is not None:
        expect_shape("codebook", "products", products, (len(actv), taps * columns), torch.float32)
    expect_contiguous("codebook", actv, one.patches, one.weight, one.bias, one.entries)
    first, last = _row_addresses(one.rows)
    first_actv, last_actv = _row_addresses(one.actv_rows)
    return {
        "actv": address(actv), "patches": address(one.patches), "weight": address(one.weight),
        "bias": address(one.bias), "entries": address(one.entries), "products": address(products), "first_row": first,
        "last_row": last, "first_actv_row": first_actv, "last_actv_row": last_actv, "rows": rows,
        "actv_rows": len(actv), "taps": taps, "channels": columns // 2, "dtype": dtype_number(actv),
    }  # fmt: skip


def _row_addresses(rows: DeviceRows | None) -> tuple[int | None, int | None]:
    return (None, None) if rows is None else (address(rows.first), address(rows.last))
