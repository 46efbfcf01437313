"""Codebook: (a, b) of every distinct label patch. Specification in NumPy, packed weights, choice of the form, step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from kernels.constants import HIDDEN
from kernels.isa import Form, Isa, input_dtype, isa_dtype, isa_forms
from kernels.layouts import BLOCK, Array, Float32, Float64, Int32, aligned_empty, pad_channels, storage_dtype
from kernels.native import native
from kernels.program import Step, StepError, expect, expect_rank, make_step

# A gathered addition costs about as much as this many of the products that it saves.
GATHER_COST = 8


def codebook_numpy(actv: Array, patches: npt.NDArray[np.int32], weight: Array, bias: Array) -> Float64:
    """What both forms of the kernel compute before they round to T.

    Args:
        actv: [U3 + 1, 128].
        patches: int32 [U5, taps], rows of actv.
        weight: [taps * 128, 2C], a before b.
        bias: [2C].

    Returns float64 [U5, 2C].
    """
    gathered = actv.astype(np.float64)[patches].reshape(len(patches), -1)  # [U5, taps * 128]
    out: Float64 = gathered @ weight.astype(np.float64) + bias
    return out


def codebook_int8_numpy(
    actv: npt.NDArray[np.uint8], patches: npt.NDArray[np.int32], weight: npt.NDArray[np.int8], scale: Array,
    bias: Array, windows: npt.NDArray[np.int32], interior: Array,
) -> Float64:  # fmt: skip
    """What the kernel of int8 products computes before it rounds to T.

    Args:
        actv, patches: as in `codebook_numpy`, in bytes.
        weight: int8 [taps * 128, 2C]. scale, bias: [2C].
        windows: int32 [U3, taps], the symbols of each row of actv but the last.
        interior: [symbols, 2C], the entry of a patch whose symbols are all the same.

    Returns float64 [U5, 2C].
    """
    gathered = actv.astype(np.int64)[patches].reshape(len(patches), -1)  # [U5, taps * 128]
    out: Float64 = (gathered @ weight.astype(np.int64)).astype(np.float64) * scale + bias
    alone = np.append((windows == windows[:, :1]).all(axis=1) & (windows[:, 0] < len(interior)), False)
    inside = (patches == patches[:, :1]).all(axis=1) & alone[patches[:, 0]]
    out[inside] = interior[windows[patches[inside, 0], 0]]
    return out


def pack_bias(bias: Array) -> Float32:
    """Bias [2C], a before b -> float32 [CB, 2, 32] as the kernel reads it."""
    pair = pad_channels(np.asarray(bias).reshape(2, -1)).reshape(2, -1, BLOCK)
    return np.ascontiguousarray(pair.transpose(1, 0, 2))


def choose_form(isa: Isa, rows: int, actv_rows: int, n_blocks: int = 1, threads: int = 1) -> Form:
    """The cheaper form of a level by count: `rows` distinct patches (U5) over `actv_rows` hidden rows (U3 + 1).

    The forms of a isa give the same bits, so any choice is right. Per tap splits over `n_blocks` = CB units at most,
    which the count of `threads` may leave uneven.
    """
    if "per_tap" not in isa_forms(isa):
        return "gathered"
    rounds = -(-n_blocks // threads)
    uneven = rounds * threads / n_blocks
    per_tap = uneven * (actv_rows * HIDDEN + rows * GATHER_COST)
    return "per_tap" if per_tap < rows * HIDDEN else "gathered"


def pack_codebook(isa: Isa, weight: Float32, channels: int) -> npt.NDArray[np.uint8]:
    """Codebook weights float32 [taps * 128, 2 * channels] (a before b) as the isa's kernel reads them."""
    expect_rank("codebook", "weight", weight, 2)
    taps = weight.shape[0] // native.HIDDEN
    expect("codebook", "weight", weight, np.float32, (taps * native.HIDDEN, 2 * channels))
    number = get_args(Isa).index(isa)
    packed = aligned_empty((native.codebook_packed_bytes(number, taps, channels),), np.uint8)
    native.codebook_pack(number, weight, taps, channels, packed)
    return packed


def pack_codebook_int8(weight: npt.NDArray[np.int8], channels: int) -> npt.NDArray[np.uint8]:
    """Codebook weights int8 [taps * 128, 2 * channels] (a before b) as the kernel of amx reads them."""
    expect_rank("codebook", "weight", weight, 2)
    taps = weight.shape[0] // native.HIDDEN
    expect("codebook", "weight", weight, np.int8, (taps * native.HIDDEN, 2 * channels))
    packed = aligned_empty((native.codebook_int8_packed_bytes(taps, channels),), np.uint8)
    native.codebook_int8_pack(weight, taps, channels, packed)
    return packed


@dataclass(frozen=True, eq=False)
class Int8:
    """What a codebook of int8 products reads besides; see `kernels.ops.codebook.codebook_int8_numpy`.

    Attributes:
        scale: float32 [CB, 2, 32], as the bias.
        windows: int32 [U3, taps], the symbols that each row of actv was made of.
        interior: T [CB, symbols, 2, 32], the entries of patches that are one symbol all over.
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
    """(a, b) of every distinct patch; see `kernels.ops.codebook.codebook_numpy`. The form changes no bit of the result.

    Args:
        actv: I [U3 + 1, 128].
        patches: int32 [U5, taps], rows of actv.
        weight: from `pack_codebook` for the same isa and channels.
        bias: float32 [CB, 2, 32], see `kernels.ops.codebook.pack_bias`.
        entries: T [CB, U5, 2, 32], out.
        form: "gathered" multiplies gathered rows; "per_tap" multiplies each row of actv once per tap, which
            `kernels.ops.codebook.choose_form` weighs.
        int8: on amx, multiplies in int8: actv is uint8 and weight from `pack_codebook_int8`.
    """
    expect_rank("codebook", "patches", patches, 2)
    expect_rank("codebook", "entries", entries, 4)
    rows, taps, n_blocks = len(patches), patches.shape[1], len(entries)
    dtype = storage_dtype(isa_dtype(isa))
    if form not in get_args(Form):
        raise StepError(f"[codebook] expected form {' or '.join(get_args(Form))} but got {form!r}")
    if form not in isa_forms(isa):
        raise StepError(f"[codebook] expected form {' or '.join(isa_forms(isa))} on isa {isa} but got {form!r}")
    if int8 is None:
        stored = storage_dtype(input_dtype(isa))
        bytes_ = native.codebook_packed_bytes(get_args(Isa).index(isa), taps, n_blocks * BLOCK)
    elif isa == "amx":
        stored, bytes_ = np.dtype(np.uint8), native.codebook_int8_packed_bytes(taps, n_blocks * BLOCK)
    else:
        raise StepError(f"[codebook] expected isa amx for int8 products but got {isa}")
    expect("codebook", "actv", actv, stored, (len(actv), native.HIDDEN))
    expect("codebook", "patches", patches, np.int32, (rows, taps))
    expect("codebook", "weight", weight, np.uint8, (bytes_,))
    expect("codebook", "bias", bias, np.float32, (n_blocks, 2, BLOCK))
    expect("codebook", "entries", entries, dtype, (n_blocks, rows, 2, BLOCK))
    arrays: dict[str, Array | None] = {
        "actv": actv, "patches": patches, "weight": weight, "bias": bias, "entries": entries
    }  # fmt: skip
    symbols = 0
    if int8 is not None:
        symbols = int8.interior.shape[1]
        expect("codebook", "scale", int8.scale, np.float32, (n_blocks, 2, BLOCK))
        expect("codebook", "windows", int8.windows, np.int32, (len(actv) - 1, taps))
        expect("codebook", "interior", int8.interior, dtype, (n_blocks, symbols, 2, BLOCK))
        arrays |= {"scale": int8.scale, "windows": int8.windows, "interior": int8.interior}
    return make_step(
        "codebook", isa, arrays, rows=rows, entry_rows=rows, taps=taps, actv_rows=len(actv), blocks=n_blocks,
        form=get_args(Form).index(form), symbols=symbols,
    )  # fmt: skip
