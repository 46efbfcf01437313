"""Codebook: the entry (a, b) of every distinct label patch, from the hidden rows of its taps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from kernels.constants import HIDDEN
from kernels.isa import Form, Isa, input_dtype, isa_dtype, isa_forms, isa_number
from kernels.layouts import BLOCK, Array, Float32, Float64, Int32, aligned_empty, pad_channels, storage_dtype
from kernels.native import native
from kernels.program import Arguments, Step, StepError, expect, expect_rank

GATHER_COST = 8
"""A gathered addition takes about as long as this many products."""

# ---- The specification in NumPy ----


def codebook_numpy(actv: Array, patches: Int32, weight: Array, bias: Array) -> Float64:
    """Compute what both forms of `codebook` compute before they round to T.

    Args:
        actv: [U3 + 1, 128], the last row outside the image.
        patches: int32 [U5, taps], rows of actv.
        weight: [taps * 128, 2C], all a before all b.
        bias: [2C].

    Returns float64 [U5, 2C].
    """
    gathered = actv.astype(np.float64)[patches].reshape(len(patches), -1)  # [U5, taps * 128]
    out: Float64 = gathered @ weight.astype(np.float64) + bias
    return out


def codebook_int8_numpy(
    actv: npt.NDArray[np.uint8], patches: Int32, weight: npt.NDArray[np.int8], scale: Array, bias: Array,
    windows: Int32, interior: Array,
) -> Float64:  # fmt: skip
    """Compute what `codebook` computes from int8 products before it rounds to T.

    Args:
        actv: uint8 [U3 + 1, 128]. patches: as in `codebook_numpy`.
        weight: int8 [taps * 128, 2C]. scale, bias: [2C].
        windows: int32 [U3, taps], the symbols of each row of actv except the last.
        interior: [symbols, 2C], the entry of a patch whose symbols are all the same.

    Returns float64 [U5, 2C].
    """
    gathered = actv.astype(np.int64)[patches].reshape(len(patches), -1)  # [U5, taps * 128]
    out: Float64 = (gathered @ weight.astype(np.int64)).astype(np.float64) * scale + bias
    one_symbol = np.append((windows == windows[:, :1]).all(axis=1) & (windows[:, 0] < len(interior)), False)
    inside = (patches == patches[:, :1]).all(axis=1) & one_symbol[patches[:, 0]]
    out[inside] = interior[windows[patches[inside, 0], 0]]
    return out


# ---- Packed weights ----


def pack_codebook(isa: Isa, weight: Float32, channels: int) -> npt.NDArray[np.uint8]:
    """Pack weights float32 [taps * 128, 2 * channels], all a before all b, for an ISA. Raises StepError."""
    taps = _taps(weight, np.float32, channels)
    packed = aligned_empty((native.codebook_packed_bytes(isa_number(isa), taps, channels),), np.uint8)
    native.codebook_pack(isa_number(isa), weight, taps, channels, packed)
    return packed


def pack_codebook_int8(weight: npt.NDArray[np.int8], channels: int) -> npt.NDArray[np.uint8]:
    """Pack weights int8 [taps * 128, 2 * channels], all a before all b, for amx. Raises StepError."""
    taps = _taps(weight, np.int8, channels)
    packed = aligned_empty((native.codebook_int8_packed_bytes(taps, channels),), np.uint8)
    native.codebook_int8_pack(weight, taps, channels, packed)
    return packed


def _taps(weight: Array, dtype: npt.DTypeLike, channels: int) -> int:
    expect_rank("codebook", "weight", weight, 2)
    taps: int = weight.shape[0] // HIDDEN
    expect("codebook", "weight", weight, dtype, (taps * HIDDEN, 2 * channels))
    return taps


def pack_bias(bias: Array) -> Float32:
    """Bias or scale [2C], all a before all b -> float32 [CB, 2, 32], zero in unused channels."""
    pair = pad_channels(np.asarray(bias).reshape(2, -1)).reshape(2, -1, BLOCK)
    return np.ascontiguousarray(pair.transpose(1, 0, 2))


# ---- The step ----


def choose_form(isa: Isa, rows: int, actv_rows: int, n_blocks: int = 1, threads: int = 1) -> Form:
    """Choose the form with less work for `rows` distinct patches (U5) over `actv_rows` hidden rows (U3 + 1).

    The forms give the same bits, so the choice only changes the time. The per-tap form has at most `n_blocks` = CB work
    items, which `threads` may share unevenly.
    """
    if "per_tap" not in isa_forms(isa):
        return "gathered"
    rounds = -(-n_blocks // threads)
    uneven = rounds * threads / n_blocks
    per_tap = uneven * (actv_rows * HIDDEN + rows * GATHER_COST)
    return "per_tap" if per_tap < rows * HIDDEN else "gathered"


@dataclass(frozen=True, eq=False)
class Int8:
    """The additional arguments of a codebook of int8 products, see `codebook_int8_numpy`.

    Attributes:
        scale: float32 [CB, 2, 32], packed by `pack_bias`.
        windows: int32 [U3, taps], the symbols that each row of actv was made of.
        interior: T [CB, symbols, 2, 32], the entries of patches whose symbols are all the same.
    """

    scale: Float32
    windows: Int32
    interior: Array


def codebook(
    isa: Isa,
    actv: Array,
    patches: Int32,
    weight: npt.NDArray[np.uint8],
    bias: Float32,
    entries: Array,
    *,
    form: Form,
    int8: Int8 | None = None,
) -> Step:
    """Return the step that `codebook_numpy` or, with int8, `codebook_int8_numpy` specifies.

    Args:
        actv: I [U3 + 1, 128], or uint8 with int8.
        patches: int32 [U5, taps], rows of actv.
        weight: from `pack_codebook` for the same ISA and channels, or from `pack_codebook_int8` with int8.
        bias: float32 [CB, 2, 32], from `pack_bias`.
        entries: T [CB, U5, 2, 32], out.
        form: "gathered" multiplies gathered rows; "per_tap" multiplies each row of actv once per tap and adds gathered
            products. Both give the same bits; `choose_form` compares their work.
        int8: multiplies in int8, on amx only.
    """
    expect_rank("codebook", "patches", patches, 2)
    expect_rank("codebook", "entries", entries, 4)
    rows, taps, n_blocks = len(patches), patches.shape[1], len(entries)
    _check_form(isa, form)
    stored, packed_bytes = _products(isa, taps, n_blocks, int8)
    expect("codebook", "actv", actv, stored, (len(actv), HIDDEN))
    expect("codebook", "patches", patches, np.int32, (rows, taps))
    expect("codebook", "weight", weight, np.uint8, (packed_bytes,))
    expect("codebook", "bias", bias, np.float32, (n_blocks, 2, BLOCK))
    expect("codebook", "entries", entries, storage_dtype(isa_dtype(isa)), (n_blocks, rows, 2, BLOCK))
    arrays = {"actv": actv, "patches": patches, "weight": weight, "bias": bias, "entries": entries}
    numbers = {
        "rows": rows, "entry_rows": rows, "taps": taps, "actv_rows": len(actv), "blocks": n_blocks,
        "form": get_args(Form).index(form),
    }  # fmt: skip
    arguments = Arguments(arrays, numbers)
    if int8 is not None:
        arguments |= _int8_arguments(isa, int8, len(actv), taps, n_blocks)
    return arguments.step("codebook", isa)


def _check_form(isa: Isa, form: Form) -> None:
    if form not in get_args(Form):
        raise StepError(f"[codebook] expected form {' or '.join(get_args(Form))} but got {form!r}")
    if form not in isa_forms(isa):
        raise StepError(f"[codebook] expected form {' or '.join(isa_forms(isa))} on isa {isa} but got {form!r}")


def _products(isa: Isa, taps: int, n_blocks: int, int8: Int8 | None) -> tuple[np.dtype[np.generic], int]:
    """The dtype of actv, and the bytes of the packed weights."""
    if int8 is None:
        packed_bytes = native.codebook_packed_bytes(isa_number(isa), taps, n_blocks * BLOCK)
        return storage_dtype(input_dtype(isa)), packed_bytes
    if isa != "amx":
        raise StepError(f"[codebook] expected isa amx for int8 products but got {isa}")
    return np.dtype(np.uint8), native.codebook_int8_packed_bytes(taps, n_blocks * BLOCK)


def _int8_arguments(isa: Isa, int8: Int8, actv_rows: int, taps: int, n_blocks: int) -> Arguments:
    symbols = int8.interior.shape[1]
    expect("codebook", "scale", int8.scale, np.float32, (n_blocks, 2, BLOCK))
    expect("codebook", "windows", int8.windows, np.int32, (actv_rows - 1, taps))
    expect("codebook", "interior", int8.interior, storage_dtype(isa_dtype(isa)), (n_blocks, symbols, 2, BLOCK))
    arrays = {"scale": int8.scale, "windows": int8.windows, "interior": int8.interior}
    return Arguments(arrays, {"symbols": symbols})
