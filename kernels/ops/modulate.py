"""Modulate: SPADE's a * norm(x) + b, where each pixel reads a and b of its label patch through the plan's index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.constants import SLOPE
from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, Int32, storage_dtype
from kernels.program import Arguments, Entries, Step, StepError, expect, expect_rank, expect_shift

# ---- The specification in NumPy ----


def modulate_numpy(
    x: Array,
    a: Array | None,
    b: Array | None,
    index: Int32 | None,
    *,
    mean: Array | None = None,
    rstd: Array | None = None,
    shift: int = 0,
    leaky: bool = True,
) -> Float64:
    """Compute what `modulate` computes before it rounds to I.

    Args:
        x: [N, C, H >> shift, W >> shift].
        a, b: [U, C], or None with index: 1 and 0.
        index: int32 [N, H, W], rows of a and b.
        mean, rstd: [N, C], or None: no normalisation.
        shift: 1 upsamples x by 2.
        leaky: leaky ReLU of slope 0.2, or no activation.

    Returns float64 [N, C, H, W].
    """
    out: Float64 = x.astype(np.float64).repeat(1 << shift, axis=2).repeat(1 << shift, axis=3)
    if mean is not None and rstd is not None:
        out = (out - mean[:, :, None, None]) * rstd[:, :, None, None]
    if a is not None and b is not None and index is not None:
        per_pixel_a, per_pixel_b = (v.astype(np.float64)[index].transpose(0, 3, 1, 2) for v in (a, b))  # [N, C, H, W]
        out = per_pixel_a * out + per_pixel_b
    return np.where(out < 0, SLOPE * out, out) if leaky else out


# ---- The step ----


@dataclass(frozen=True, eq=False)
class Modulation:
    """How a map is modulated. The default only applies leaky ReLU.

    Attributes:
        entries: the codebook entries of each image, or None with index: a = 1 and b = 0.
        index: int32 [N, H, W], rows of the image's entries.
        mean, rstd: float32 [N, CB * 32], or None: no normalisation.
        shift: 1 upsamples x by 2.
        leaky: leaky ReLU of slope 0.2, or no activation.
    """

    entries: Entries | None = None
    index: Int32 | None = None
    mean: Float32 | None = None
    rstd: Float32 | None = None
    shift: int = 0
    leaky: bool = True


def modulate(isa: Isa, x: Array, modulation: Modulation, out: Array) -> Step:
    """Return the step that `modulate_numpy` specifies.

    Args:
        x: plain map T [N, H >> shift, CB, W >> shift, 32].
        out: padded map I [N, H + 2, CB, W + 2, 32], out; the step writes its zero border too.
    """
    expect_rank("modulate", "out", out, 5)
    n, height, n_blocks, width = out.shape[0], out.shape[1] - 2, out.shape[2], out.shape[3] - 2
    expect("modulate", "out", out, storage_dtype(input_dtype(isa)), (n, height + 2, n_blocks, width + 2, BLOCK))
    arguments = modulate_arguments("modulate", isa, x, modulation, (n, height, n_blocks, width))
    return (arguments | Arguments({"out": out}, {})).step("modulate", isa)


def modulate_arguments(
    op: str, isa: Isa, x: Array, modulation: Modulation, size: tuple[int, int, int, int]
) -> Arguments:
    """Check a modulation whose result has `size` (n, height, blocks, width); return all arguments except `out`."""
    n, height, n_blocks, width = size
    of, dtype = modulation, storage_dtype(isa_dtype(isa))
    expect_shift(op, "shift", of.shift, height, width)
    if (of.entries is None) != (of.index is None) or (of.mean is None) != (of.rstd is None):
        raise StepError(f"[{op}] expected entries with index and mean with rstd but got one of them alone")
    expect(op, "x", x, dtype, (n, height >> of.shift, n_blocks, width >> of.shift, BLOCK))
    arrays: dict[str, Array | None] = {"x": x, "index": of.index, "mean": of.mean, "rstd": of.rstd}
    if of.entries is not None and of.index is not None:
        _check_entries(op, of.entries, n, n_blocks, dtype)
        expect(op, "index", of.index, np.int32, (n, height, width))
        arrays |= {"entries": of.entries.addresses, "entry_rows": of.entries.rows}
    for name, statistic in (("mean", of.mean), ("rstd", of.rstd)):
        if statistic is not None:
            expect(op, name, statistic, np.float32, (n, n_blocks * BLOCK))
    numbers = {
        "n": n, "height": height, "width": width, "blocks": n_blocks, "shift": of.shift, "leaky": int(of.leaky),
        "bottom": height, "right": width,
    }  # fmt: skip
    return Arguments(arrays, numbers, () if of.entries is None else (of.entries,))


def _check_entries(op: str, entries: Entries, n: int, n_blocks: int, dtype: np.dtype[np.generic]) -> None:
    if (len(entries.rows), entries.blocks, entries.dtype) != (n, n_blocks, dtype):
        raise StepError(
            f"[{op}] expected entries of {n} images, {n_blocks} blocks of {dtype}, "
            f"but got {len(entries.rows)} images, {entries.blocks} blocks of {entries.dtype}"
        )
