"""Programs for the native executor: a step is one kernel and its arguments, a program runs them in order.

    tier = choose_tier("bf16")
    program = Program([modulate(tier, ...), conv(tier, ...)])
    seconds = run(program, Pool(2))
    program.args(0)["rows"] = rows  # change an argument in place

Arrays are C-contiguous NumPy arrays in the layouts of kernels/layouts.py; a program keeps them alive. Every function
checks shapes and dtypes, since the kernels check nothing; who patches a program's arguments answers for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from kernels import _native
from kernels.layouts import BLOCK, Array, DType, Float32, aligned_empty, blocks, storage_dtype

TIER_VARIABLE = "SPADE_CPU_TIER"

Tier = Literal["avx2", "avx512", "avx512bf16", "amx"]
Form = Literal["gathered", "per_tap"]
Int32 = npt.NDArray[np.int32]
_Value = TypeVar("_Value")

# What plain maps and entries are stored as, and what products read.
_TIER_DTYPES: dict[Tier, tuple[DType, DType]] = {
    "avx2": ("float32", "float32"),
    "avx512": ("float32", "float32"),
    "avx512bf16": ("bf16", "bf16"),
    "amx": ("float16", "bf16"),
}


class StepError(ValueError):
    """Arguments that a kernel cannot take; the message holds the value and what was expected."""


class TierError(RuntimeError):
    """No tier for this dtype on this processor, or none by that name."""


# ---- Tiers ----


def supported_tiers() -> list[Tier]:
    """The tiers that this processor runs, slowest first."""
    return [tier for number, tier in enumerate(get_args(Tier)) if _native.tier_supported(number)]


def tier_dtype(tier: Tier) -> DType:
    """T: what plain maps and entries are stored as in a tier."""
    return _TIER_DTYPES[tier][0]


def input_dtype(tier: Tier) -> DType:
    """I: what products read in a tier, so what padded maps and hidden rows are stored as."""
    return _TIER_DTYPES[tier][1]


def tier_forms(tier: Tier) -> tuple[Form, ...]:
    """The forms of the codebook that a tier has; where there are two, they give the same bits."""
    return ("gathered",) if tier == "amx" else get_args(Form)


def choose_tier(dtype: DType, environment: Mapping[str, str] = os.environ) -> Tier:
    """The fastest tier on this processor whose products read `dtype`; SPADE_CPU_TIER forces one. Raises TierError."""
    fitting = [tier for tier in supported_tiers() if input_dtype(tier) == dtype]
    forced = environment.get(TIER_VARIABLE)
    if forced:
        if forced not in fitting:
            raise TierError(
                f"[cpu] expected {TIER_VARIABLE} to be a tier of {dtype} on this processor, one of {fitting}, "
                f"but got {forced!r}; unset it or use another precision"
            )
        return fitting[fitting.index(forced)]
    if not fitting:
        raise TierError(
            f"[cpu] expected a processor with AVX-512 and its bf16 (bf16) or AVX2 (float32) but this one has none "
            f"for {dtype}; use the torch engine"
        )
    return fitting[-1]


# ---- Steps and programs ----


def _record_dtype(fields: Sequence[tuple[str, int, str]]) -> np.dtype[Any]:
    names, offsets, formats = zip(*fields, strict=True)
    start = _native.STEP_ARGS_OFFSET
    layout = {
        "names": ["kind", "tier", "overlaps", *names],
        "formats": ["i8", "i8", "i8", *formats],
        "offsets": [0, 8, 16, *(start + offset for offset in offsets)],
        "itemsize": _native.STEP_BYTES,
    }
    return np.dtype(layout)  # type: ignore[call-overload, no-any-return]


_KINDS = {name: (kind, _record_dtype(fields)) for name, (kind, fields) in _native.STEP_KINDS.items()}


@dataclass(frozen=True, eq=False)
class Step:
    """One step: its kind, its arguments as the C struct (a record array of one), and what holds their memory."""

    kind: str
    record: npt.NDArray[np.void]
    arrays: tuple[Array | Entries, ...]


class Program:
    """Steps in the executor's memory. Not changed while it runs.

    Args:
        steps: run one after the other.
        overlaps: how many of the steps right before each may still run when it starts, one number per step; None: none.
    """

    def __init__(self, steps: Sequence[Step], overlaps: Sequence[int] | None = None) -> None:
        self.kinds = tuple(step.kind for step in steps)
        self._memory = aligned_empty((len(steps), _native.STEP_BYTES), np.uint8)
        self._arrays: list[tuple[Array | Entries, ...]] = [step.arrays for step in steps]
        for memory, step in zip(self._memory, steps, strict=True):
            memory[:] = step.record.view(np.uint8)
        if overlaps is not None:
            for i, number in enumerate(overlaps):
                self.args(i)["overlaps"] = number

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def memory(self) -> npt.NDArray[np.uint8]:
        """All steps as the executor reads them, uint8 [bytes]."""
        return self._memory.reshape(-1)

    def args(self, step: int) -> npt.NDArray[np.void]:
        """The arguments of a step, a view: `args(i)["rows"] = 7` changes what the next run does."""
        record: npt.NDArray[np.void] = self._memory[step].view(_KINDS[self.kinds[step]][1])
        return record

    def words(self, step: int, *fields: str) -> list[int]:
        """Where arguments of a step are in `memory` as int64, for those who set many in a short time."""
        offsets = self.args(step).dtype.fields
        assert offsets is not None
        return [(step * _native.STEP_BYTES + offsets[field][1]) // 8 for field in fields]

    def replace(self, position: int, step: Step) -> None:
        """Put another step of any kind in place of one."""
        self._memory[position] = step.record.view(np.uint8)
        self._arrays[position] = step.arrays
        self.kinds = (*self.kinds[:position], step.kind, *self.kinds[position + 1 :])


class Pool:
    """Threads that run programs: the caller's and `threads` - 1 of its own. One program at a time; others wait."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise StepError(f"[cpu] expected threads of 1 or more but got {threads}")
        self.threads = threads
        self.native = _native.Pool(threads)

    def run(self, program: Program) -> dict[str, float]:
        """As `run`."""
        seconds = np.zeros(_native.SECONDS)
        self.native.run(program.memory, seconds)
        return {name: float(seconds[kind]) for name, (kind, _) in _KINDS.items()}


def run(program: Program, pool: Pool) -> dict[str, float]:
    """Run a program without the GIL and return the seconds of each kind of step.

    The result depends neither on the number of threads nor, for one image, on the batch, bit for bit.
    """
    return pool.run(program)


def _step(kind: str, tier: Tier, arrays: Mapping[str, Array | None], **numbers: float) -> Step:
    number, dtype = _KINDS[kind]
    record = np.zeros(1, dtype)
    record["kind"], record["tier"] = number, get_args(Tier).index(tier)
    kept = []
    for name, array in arrays.items():
        if array is not None:
            record[name] = array.ctypes.data
            kept.append(array)
    for name, value in numbers.items():
        record[name] = value
    return Step(kind, record, tuple(kept))


def _expect(op: str, name: str, array: Array, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise StepError(
            f"[{op}] expected {name} as C-contiguous {np.dtype(dtype)} {list(shape)} "
            f"but got {'' if array.flags.c_contiguous else 'non-contiguous '}{array.dtype} {list(array.shape)}"
        )


def _expect_rank(op: str, name: str, array: Array, rank: int) -> None:
    if array.ndim != rank or 0 in array.shape:
        raise StepError(
            f"[{op}] expected {name} with {rank} axes, none of them empty, but got a shape of {list(array.shape)}"
        )


# ---- The kinds of step ----


def embed(tier: Tier, table: Float32, bias: Float32, patches: Int32, out: Array, *, relu: bool, zero_row: bool) -> Step:
    """Conv on a one-hot map as a sum of gathered rows; see `kernels.embed.embed_numpy` and, of bytes, `as_bytes`.

    Args:
        table: float32 [taps, symbols + 1, D], D a multiple of 32, the last row of each tap zero.
        bias: float32 [D].
        patches: int32 [U, taps], 0..symbols.
        out: with zero_row, hidden rows I [U + 1, D], or on amx uint8 for int8 products; else a plain map T
            [N, H, D / 32, W, 32] of N * H * W = U pixels, or T [U, D].
    """
    _expect_rank("embed", "table", table, 3)
    taps, symbols, depth = table.shape[0], table.shape[1] - 1, table.shape[2]
    _expect_rank("embed", "patches", patches, 2)
    rows, width = len(patches), 1
    if depth % BLOCK:
        raise StepError(f"[embed] expected a depth that is a multiple of {BLOCK} but got {depth}; pad it with zeros")
    shape: tuple[int, ...] = (rows + int(zero_row), depth)
    if out.ndim == 5 and not zero_row:
        n, height, _, width, _ = out.shape
        shape = (n, height, depth // BLOCK, width, BLOCK)
        if n * height * width != rows:
            raise StepError(f"[embed] expected a plain map of {rows} pixels but got {list(out.shape)}")
    _expect("embed", "table", table, np.float32, (taps, symbols + 1, depth))
    _expect("embed", "bias", bias, np.float32, (depth,))
    _expect("embed", "patches", patches, np.int32, (rows, taps))
    as_bytes = zero_row and tier == "amx" and out.dtype == np.uint8
    stored = storage_dtype(input_dtype(tier) if zero_row else tier_dtype(tier))
    _expect("embed", "out", out, np.uint8 if as_bytes else stored, shape)
    arrays = {"table": table, "bias": bias, "patches": patches, "out": out}
    numbers = {"rows": rows, "taps": taps, "symbols": symbols, "depth": depth, "width": width}
    return _step("embed", tier, arrays, **numbers, relu=relu, zero_row=zero_row, as_bytes=as_bytes)


def pack_codebook(tier: Tier, weight: Float32, channels: int) -> npt.NDArray[np.uint8]:
    """Codebook weights float32 [taps * 128, 2 * channels] (a before b) as the tier's kernel reads them."""
    _expect_rank("codebook", "weight", weight, 2)
    taps = weight.shape[0] // _native.HIDDEN
    _expect("codebook", "weight", weight, np.float32, (taps * _native.HIDDEN, 2 * channels))
    number = get_args(Tier).index(tier)
    packed = aligned_empty((_native.codebook_packed_bytes(number, taps, channels),), np.uint8)
    _native.codebook_pack(number, weight, taps, channels, packed)
    return packed


def pack_codebook_int8(weight: npt.NDArray[np.int8], channels: int) -> npt.NDArray[np.uint8]:
    """Codebook weights int8 [taps * 128, 2 * channels] (a before b) as the kernel of amx reads them."""
    _expect_rank("codebook", "weight", weight, 2)
    taps = weight.shape[0] // _native.HIDDEN
    _expect("codebook", "weight", weight, np.int8, (taps * _native.HIDDEN, 2 * channels))
    packed = aligned_empty((_native.codebook_int8_packed_bytes(taps, channels),), np.uint8)
    _native.codebook_int8_pack(weight, taps, channels, packed)
    return packed


@dataclass(frozen=True, eq=False)
class Int8:
    """What a codebook of int8 products reads besides; see `kernels.codebook.codebook_int8_numpy`.

    Attributes:
        scale: float32 [CB, 2, 32], as the bias.
        windows: int32 [U3, taps], the symbols that each row of actv was made of.
        interior: T [CB, symbols, 2, 32], the entries of patches that are one symbol all over.
    """

    scale: Float32
    windows: Int32
    interior: Array


def codebook(
    tier: Tier,
    actv: Array,
    patches: Int32,
    weight: npt.NDArray[np.uint8],
    bias: Float32,
    entries: Array,
    *,
    form: Form,
    int8: Int8 | None = None,
) -> Step:
    """(a, b) of every distinct patch; see `kernels.codebook.codebook_numpy`. The form changes no bit of the result.

    Args:
        actv: I [U3 + 1, 128].
        patches: int32 [U5, taps], rows of actv.
        weight: from `pack_codebook` for the same tier and channels.
        bias: float32 [CB, 2, 32], see `kernels.codebook.pack_bias`.
        entries: T [CB, U5, 2, 32], out.
        form: "gathered" multiplies gathered rows; "per_tap" multiplies each row of actv once per tap, which
            `kernels.codebook.choose_form` weighs.
        int8: on amx, multiplies in int8: actv is uint8 and weight from `pack_codebook_int8`.
    """
    _expect_rank("codebook", "patches", patches, 2)
    _expect_rank("codebook", "entries", entries, 4)
    rows, taps, n_blocks = len(patches), patches.shape[1], len(entries)
    dtype = storage_dtype(tier_dtype(tier))
    if form not in get_args(Form):
        raise StepError(f"[codebook] expected form {' or '.join(get_args(Form))} but got {form!r}")
    if form not in tier_forms(tier):
        raise StepError(f"[codebook] expected form {' or '.join(tier_forms(tier))} on tier {tier} but got {form!r}")
    if int8 is None:
        stored = storage_dtype(input_dtype(tier))
        bytes_ = _native.codebook_packed_bytes(get_args(Tier).index(tier), taps, n_blocks * BLOCK)
    elif tier == "amx":
        stored, bytes_ = np.dtype(np.uint8), _native.codebook_int8_packed_bytes(taps, n_blocks * BLOCK)
    else:
        raise StepError(f"[codebook] expected tier amx for int8 products but got {tier}")
    _expect("codebook", "actv", actv, stored, (len(actv), _native.HIDDEN))
    _expect("codebook", "patches", patches, np.int32, (rows, taps))
    _expect("codebook", "weight", weight, np.uint8, (bytes_,))
    _expect("codebook", "bias", bias, np.float32, (n_blocks, 2, BLOCK))
    _expect("codebook", "entries", entries, dtype, (n_blocks, rows, 2, BLOCK))
    arrays: dict[str, Array | None] = {
        "actv": actv, "patches": patches, "weight": weight, "bias": bias, "entries": entries
    }  # fmt: skip
    symbols = 0
    if int8 is not None:
        symbols = int8.interior.shape[1]
        _expect("codebook", "scale", int8.scale, np.float32, (n_blocks, 2, BLOCK))
        _expect("codebook", "windows", int8.windows, np.int32, (len(actv) - 1, taps))
        _expect("codebook", "interior", int8.interior, dtype, (n_blocks, symbols, 2, BLOCK))
        arrays |= {"scale": int8.scale, "windows": int8.windows, "interior": int8.interior}
    return _step(
        "codebook", tier, arrays, rows=rows, entry_rows=rows, taps=taps, actv_rows=len(actv), blocks=n_blocks,
        form=get_args(Form).index(form), symbols=symbols,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entries:
    """Where the entries of each image of a modulation lie. A program that holds this reads it when it runs.

    Attributes:
        addresses: uint64 [N], of each image T [CB, U5, 2, 32]: a whole table, or a run of the rows of one.
        rows: int64 [N], of the whole table.
        blocks, dtype: CB and T.
        tables: what is kept alive.
    """

    addresses: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]
    blocks: int
    dtype: np.dtype[Any]
    tables: tuple[Array, ...] = ()

    @classmethod
    def of(cls, tables: Sequence[Array]) -> Entries:
        """The entries of each image in a table, or a run of rows of one."""
        blocks, dtype = tables[0].shape[0], tables[0].dtype
        rows = []
        for table in tables:
            shape, inner = (blocks, *table.shape[1:2], 2, BLOCK), BLOCK * 2 * table.itemsize
            whole, rest = divmod(table.strides[0], inner)
            if table.shape != shape or table.dtype != dtype or rest or not table[0].flags.c_contiguous:
                raise StepError(
                    f"[modulate] expected entries as {dtype} {[blocks, 'U5', 2, BLOCK]}, or rows of such a "
                    f"table, but got {table.dtype} {list(table.shape)} with strides {list(table.strides)}"
                )
            rows.append(whole)
        addresses = np.asarray([table.ctypes.data for table in tables], np.uint64)
        return cls(addresses, np.asarray(rows, np.int64), blocks, dtype, tuple(tables))


def modulate(
    tier: Tier,
    x: Array,
    entries: Entries | None,
    index: Int32 | None,
    out: Array,
    *,
    mean: Float32 | None = None,
    rstd: Float32 | None = None,
    shift: int = 0,
    leaky: bool = True,
) -> Step:
    """out = act(a[index] * ((x - mean) * rstd) + b[index]); see `kernels.modulate.modulate_numpy`.

    Args:
        x: plain map T [N, H >> shift, CB, W >> shift, 32].
        entries: of each image, or None with index: a = 1, b = 0.
        index: int32 [N, H, W], rows of the image's entries.
        out: padded map I [N, H + 2, CB, W + 2, 32], out, with its border.
        mean, rstd: float32 [N, CB * 32], or None.
        shift: 1 reads x upsampled by 2.
        leaky: leaky ReLU of slope 0.2.
    """
    _expect_rank("modulate", "out", out, 5)
    n, height, n_blocks, width = out.shape[0], out.shape[1] - 2, out.shape[2], out.shape[3] - 2
    _expect("modulate", "out", out, storage_dtype(input_dtype(tier)), (n, height + 2, n_blocks, width + 2, BLOCK))
    size = (n, height, n_blocks, width)
    arrays, numbers, kept = _modulation("modulate", tier, x, entries, index, mean, rstd, size, shift, leaky)
    step = _step("modulate", tier, {**arrays, "out": out}, **numbers)
    return Step(step.kind, step.record, (*step.arrays, *kept))


def _modulation(
    op: str, tier: Tier, x: Array, entries: Entries | None, index: Int32 | None, mean: Float32 | None,
    rstd: Float32 | None, size: tuple[int, int, int, int], shift: int, leaky: bool,
) -> tuple[dict[str, Array | None], dict[str, int], tuple[Entries, ...]]:  # fmt: skip
    """The checked arguments of a modulation of n, height, blocks, width, but for out, and what they point to."""
    n, height, n_blocks, width = size
    dtype = storage_dtype(tier_dtype(tier))
    if shift not in (0, 1) or (shift and (height % 2 or width % 2)):
        raise StepError(f"[{op}] expected shift 0, or 1 with even sizes, but got {shift} for {height}x{width}")
    if (entries is None) != (index is None) or (mean is None) != (rstd is None):
        raise StepError(f"[{op}] expected entries with index and mean with rstd but got one of them alone")
    _expect(op, "x", x, dtype, (n, height >> shift, n_blocks, width >> shift, BLOCK))
    arrays: dict[str, Array | None] = {"x": x, "index": index, "mean": mean, "rstd": rstd}
    kept: tuple[Entries, ...] = ()
    if entries is not None and index is not None:
        if (len(entries.rows), entries.blocks, entries.dtype) != (n, n_blocks, dtype):
            raise StepError(
                f"[{op}] expected entries of {n} images, {n_blocks} blocks of {dtype}, "
                f"but got {len(entries.rows)} images, {entries.blocks} blocks of {entries.dtype}"
            )
        _expect(op, "index", index, np.int32, (n, height, width))
        arrays |= {"entries": entries.addresses, "entry_rows": entries.rows}
        kept = (entries,)  # and with it whatever tables it is set to later
    for name, statistic in (("mean", mean), ("rstd", rstd)):
        if statistic is not None:
            _expect(op, name, statistic, np.float32, (n, n_blocks * BLOCK))
    numbers = {"n": n, "height": height, "width": width, "blocks": n_blocks, "shift": shift, "leaky": int(leaky)}
    return arrays, numbers, kept


def norm(tier: Tier, x: Array, mean: Float32, rstd: Float32, *, epsilon: float = 1e-5) -> Step:
    """Mean and 1 / sqrt(variance + epsilon) of a plain map; see `kernels.norm.norm_numpy`.

    Args:
        x: plain map T [N, H, CB, W, 32].
        mean, rstd: float32 [N, CB * 32], out.
    """
    _expect_rank("norm", "x", x, 5)
    n, height, n_blocks, width, _ = x.shape
    _expect("norm", "x", x, storage_dtype(tier_dtype(tier)), (n, height, n_blocks, width, BLOCK))
    _expect("norm", "mean", mean, np.float32, (n, n_blocks * BLOCK))
    _expect("norm", "rstd", rstd, np.float32, (n, n_blocks * BLOCK))
    arrays = {"x": x, "mean": mean, "rstd": rstd}
    return _step("norm", tier, arrays, n=n, height=height, width=width, blocks=n_blocks, epsilon=epsilon)


def image(tier: Tier, x: Array, values: Float32 | None, pixels: npt.NDArray[np.uint8] | None) -> Step:
    """tanh of the first 3 channels; see `kernels.image.image_numpy`.

    Args:
        x: plain map T [N, H, 1, W, 32].
        values: float32 [N, 3, H, W] in -1..1, out, or None.
        pixels: uint8 [N, H, W, 3], out, or None.
    """
    _expect_rank("image", "x", x, 5)
    n, height, _, width, _ = x.shape
    _expect("image", "x", x, storage_dtype(tier_dtype(tier)), (n, height, 1, width, BLOCK))
    if values is not None:
        _expect("image", "values", values, np.float32, (n, 3, height, width))
    if pixels is not None:
        _expect("image", "pixels", pixels, np.uint8, (n, height, width, 3))
    return _step("image", tier, {"x": x, "values": values, "pixels": pixels}, n=n, height=height, width=width)


def pack_conv(tier: Tier, weight: Float32) -> npt.NDArray[np.uint8]:
    """Conv weights float32 [Co, Ci, k, k], k 1 or 3, as the tier's kernel reads them."""
    _expect_rank("conv", "weight", weight, 4)
    out_channels, in_channels, kernel_size, _ = weight.shape
    if kernel_size not in (1, 3):
        raise StepError(f"[conv] expected a kernel size of 1 or 3 but got {kernel_size}")
    _expect("conv", "weight", weight, np.float32, (out_channels, in_channels, kernel_size, kernel_size))
    number = get_args(Tier).index(tier)
    packed = aligned_empty((_native.conv_packed_bytes(number, out_channels, in_channels, kernel_size),), np.uint8)
    _native.conv_pack(number, weight, out_channels, in_channels, kernel_size, packed)
    return packed


def conv(
    tier: Tier,
    x: Array,
    weight: npt.NDArray[np.uint8],
    bias: Float32,
    residual: Array | None,
    y: Array,
    *,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    residual_shift: int = 0,
) -> Step:
    """y = conv(x) + bias (+ residual, upsampled by 2 if residual_shift is 1); see `kernels.conv.conv_numpy`.

    Args:
        x: padded map I [N, H + 2, CBi, W + 2, 32].
        weight: from `pack_conv` for the same tier.
        bias: float32 [CBo * 32], zero behind out_channels.
        residual: plain map T [N, H >> residual_shift, CBo, W >> residual_shift, 32], or None.
        y: plain map T [N, H, CBo, W, 32], out.
    """
    _expect_rank("conv", "y", y, 5)
    n, height, _, width, _ = y.shape
    x_shape = (n, height + 2, blocks(in_channels), width + 2, BLOCK)
    _expect("conv", "x", x, storage_dtype(input_dtype(tier)), x_shape)
    arrays, numbers = _convolution(
        "conv", tier, weight, bias, residual, y, in_channels, out_channels, kernel_size, residual_shift
    )
    return _step("conv", tier, {"x": x, **arrays}, **numbers)


@dataclass(frozen=True, eq=False)
class Shortcut:
    """A second modulated conv, 1x1, without bias and activation, that is added to the first.

    Attributes:
        x: plain map T [N, H >> shift, CBs, W >> shift, 32].
        entries, index, mean, rstd, shift: as in `modulate`.
        weight: from `pack_conv` for the same tier, 1x1.
    """

    x: Array
    entries: Entries | None
    index: Int32 | None
    weight: npt.NDArray[np.uint8]
    in_channels: int
    mean: Float32 | None = None
    rstd: Float32 | None = None
    shift: int = 0


def modulated_conv(
    tier: Tier,
    x: Array,
    entries: Entries | None,
    index: Int32 | None,
    weight: npt.NDArray[np.uint8],
    bias: Float32,
    residual: Array | None,
    y: Array,
    *,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    mean: Float32 | None = None,
    rstd: Float32 | None = None,
    shift: int = 0,
    leaky: bool = True,
    residual_shift: int = 0,
    shortcut: Shortcut | None = None,
) -> Step:
    """`modulate`, then `conv`, in bands of rows that stay in the cache: the same bits, without the map between.

    Args: see there. With a shortcut there is no residual.
    """
    op = "modulated_conv"
    _expect_rank(op, "y", y, 5)
    n, height, _, width, _ = y.shape
    size = (n, height, blocks(in_channels), width)
    arrays, numbers, kept = _modulation(op, tier, x, entries, index, mean, rstd, size, shift, leaky)
    conv_arrays, conv_numbers = _convolution(
        op, tier, weight, bias, residual, y, in_channels, out_channels, kernel_size, residual_shift
    )
    arrays |= _prefixed("conv_", conv_arrays)
    numbers |= _prefixed("conv_", conv_numbers)
    if shortcut is not None:
        if residual is not None:
            raise StepError(f"[{op}] expected a residual or a shortcut but got both")
        more_arrays, more_numbers, more_kept = _shortcut(tier, shortcut, y, out_channels)
        arrays, numbers, kept = arrays | more_arrays, numbers | more_numbers, (*kept, *more_kept)
    step = _step(op, tier, arrays, **numbers)
    return Step(step.kind, step.record, (*step.arrays, *kept))


def _shortcut(
    tier: Tier, of: Shortcut, y: Array, out_channels: int
) -> tuple[dict[str, Array | None], dict[str, int], tuple[Entries, ...]]:
    op, (n, height, out_blocks, width, _) = "modulated_conv shortcut", y.shape
    size = (n, height, blocks(of.in_channels), width)
    arrays, numbers, kept = _modulation(
        op, tier, of.x, of.entries, of.index, of.mean, of.rstd, size, of.shift, leaky=False
    )
    no_bias = np.zeros(out_blocks * BLOCK, np.float32)
    conv_arrays, conv_numbers = _convolution(op, tier, of.weight, no_bias, None, y, of.in_channels, out_channels, 1, 0)
    arrays = _prefixed("shortcut_", arrays) | _prefixed("shortcut_conv_", conv_arrays)
    numbers = _prefixed("shortcut_", numbers) | _prefixed("shortcut_conv_", conv_numbers)
    return arrays, numbers | {"has_shortcut": 1}, kept


def _prefixed(prefix: str, values: Mapping[str, _Value]) -> dict[str, _Value]:
    return {prefix + name: value for name, value in values.items()}


def _convolution(
    op: str, tier: Tier, weight: npt.NDArray[np.uint8], bias: Float32, residual: Array | None, y: Array,
    in_channels: int, out_channels: int, kernel_size: int, residual_shift: int,
) -> tuple[dict[str, Array | None], dict[str, int]]:  # fmt: skip
    """The checked arguments of a conv, but for x."""
    n, height, _, width, _ = y.shape
    dtype, out_blocks = storage_dtype(tier_dtype(tier)), blocks(out_channels)
    if residual_shift not in (0, 1) or (residual_shift and (height % 2 or width % 2)):
        raise StepError(
            f"[{op}] expected residual_shift 0, or 1 with even sizes, but got {residual_shift} for {height}x{width}"
        )
    bytes_ = _native.conv_packed_bytes(get_args(Tier).index(tier), out_channels, in_channels, kernel_size)
    _expect(op, "weight", weight, np.uint8, (bytes_,))
    _expect(op, "bias", bias, np.float32, (out_blocks * BLOCK,))
    _expect(op, "y", y, dtype, (n, height, out_blocks, width, BLOCK))
    if residual is not None:
        shape = (n, height >> residual_shift, out_blocks, width >> residual_shift, BLOCK)
        _expect(op, "residual", residual, dtype, shape)
    numbers = {
        "n": n, "height": height, "width": width, "in_channels": in_channels, "out_channels": out_channels,
        "kernel_size": kernel_size, "residual_shift": residual_shift,
    }  # fmt: skip
    return {"weight": weight, "bias": bias, "residual": residual, "y": y}, numbers
