"""Embed and codebook on CUDA, several norms a launch. `embed_numpy` and `codebook_numpy` of the CPU kernels are their
specification."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.constants import HIDDEN
from kernels.cuda.host.library import Argument, Library
from kernels.cuda.host.tensors import address, dtype_number, expect_contiguous, expect_shape, library_of, stream_of


@dataclass(frozen=True)
class DeviceRows:
    """A number of rows known on the device only: *last - *first, two elements of a plan's offsets."""

    first: Tensor
    last: Tensor


@dataclass(frozen=True)
class Embed:
    """out = act(bias + sum over taps of table[tap][patches[:, tap]]).

    Attributes:
        table: T [taps, symbols + 1, D], the last row of each tap zero.
        bias: float32 [D].
        patches: int32 [U, taps], 0..symbols.
        out: T [U, D] or, with zero_row, [U + 1, D], out; the zeros lie behind the last row.
        rows: how many rows of patches there are; None: all.
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
    """entries = bias + gathered rows of actv x weight^T.

    Attributes:
        actv: T [U3 + 1, 128], the last row zero.
        patches: int32 [U5, taps], rows of actv.
        weight: T [2C, taps * 128], a before b; for the per-tap form, `per_tap_weight` of it.
        bias: float32 [2C].
        entries: T [U5, 2C], out.
        products: float32 [U3 + 1, taps * 2C], scratch: takes the per-tap form, which multiplies every row of actv once
            per tap and sums gathered rows. None multiplies the gathered rows.
        rows, actv_rows: how many rows of patches, and of actv before its last, there are; None: all.
    """

    actv: Tensor
    patches: Tensor
    weight: Tensor
    bias: Tensor
    entries: Tensor
    products: Tensor | None = None
    rows: DeviceRows | None = None
    actv_rows: DeviceRows | None = None


def embed(*jobs: Embed, library: Library | None = None) -> None:
    """Run jobs of one dtype in one launch; none may read what another writes. Raises CudaError."""
    library = library_of(jobs[0].table, library)
    library.call_jobs("embed", stream_of(jobs[0].table), [_embed_arguments(job) for job in jobs])


def codebook(*jobs: Codebook, library: Library | None = None) -> None:
    """Run jobs of one dtype in one launch; none may read what another writes. Raises CudaError."""
    library = library_of(jobs[0].actv, library)
    library.call_jobs("codebook", stream_of(jobs[0].actv), [_codebook_arguments(job) for job in jobs])


def per_tap_weight(weight: Tensor) -> Tensor:
    """[2C, taps * 128] -> [taps * 2C, 128], the weights of all taps below each other."""
    return weight.view(len(weight), -1, HIDDEN).transpose(0, 1).reshape(-1, HIDDEN).contiguous()


def _embed_arguments(job: Embed) -> dict[str, Argument]:
    taps, symbols, depth = job.table.shape[0], job.table.shape[1] - 1, job.table.shape[2]
    rows = len(job.patches)
    expect_shape("embed", "bias", job.bias, (depth,), torch.float32)
    expect_shape("embed", "patches", job.patches, (rows, taps), torch.int32)
    expect_shape("embed", "out", job.out, (rows + int(job.zero_row), depth), job.table.dtype)
    expect_contiguous("embed", job.table, job.bias, job.patches, job.out)
    first, last = _row_addresses(job.rows)
    return {
        "table": address(job.table), "bias": address(job.bias), "patches": address(job.patches),
        "out": address(job.out), "first_row": first, "last_row": last, "rows": rows, "taps": taps, "symbols": symbols,
        "depth": depth, "relu": job.relu, "zero_row": job.zero_row, "dtype": dtype_number(job.table),
    }  # fmt: skip


def _codebook_arguments(job: Codebook) -> dict[str, Argument]:
    actv, products = job.actv, job.products
    (rows, taps), columns = job.patches.shape, len(job.bias)
    expect_shape("codebook", "actv", actv, (len(actv), HIDDEN), actv.dtype)
    expect_shape("codebook", "patches", job.patches, (rows, taps), torch.int32)
    expect_shape("codebook", "bias", job.bias, (columns,), torch.float32)
    shape = (columns, taps * HIDDEN) if products is None else (taps * columns, HIDDEN)
    expect_shape("codebook", "weight", job.weight, shape, actv.dtype)
    expect_shape("codebook", "entries", job.entries, (rows, columns), actv.dtype)
    if products is not None:
        expect_shape("codebook", "products", products, (len(actv), taps * columns), torch.float32)
    expect_contiguous("codebook", actv, job.patches, job.weight, job.bias, job.entries)
    first, last = _row_addresses(job.rows)
    first_actv, last_actv = _row_addresses(job.actv_rows)
    return {
        "actv": address(actv), "patches": address(job.patches), "weight": address(job.weight),
        "bias": address(job.bias), "entries": address(job.entries), "products": address(products), "first_row": first,
        "last_row": last, "first_actv_row": first_actv, "last_actv_row": last_actv, "rows": rows,
        "actv_rows": len(actv), "taps": taps, "channels": columns // 2, "dtype": dtype_number(actv),
    }  # fmt: skip


def _row_addresses(rows: DeviceRows | None) -> tuple[int | None, int | None]:
    return (None, None) if rows is None else (address(rows.first), address(rows.last))
