"""Modulate: SPADE's a * norm(x) + b through the plan's index. The specification of `kernels.ops.modulate.modulate`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.constants import SLOPE
from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, Float32, Float64, Int32, storage_dtype
from kernels.program import Entries, Step, StepError, expect, expect_rank, make_step


def modulate_numpy(
    x: Array,
    a: Array | None,
    b: Array | None,
    index: npt.NDArray[np.int32] | None,
    *,
    mean: Array | None = None,
    rstd: Array | None = None,
    shift: int = 0,
    leaky: bool = True,
) -> Float64:
    """What the kernel computes before it rounds to T.

    Args:
        x: [N, C, H >> shift, W >> shift].
        a, b: [U, C], or None with index: 1 and 0.
        index: int32 [N, H, W], rows of a and b.
        mean, rstd: [N, C], or None.

    Returns float64 [N, C, H, W].
    """
    out: Float64 = x.astype(np.float64).repeat(1 << shift, axis=2).repeat(1 << shift, axis=3)
    if mean is not None and rstd is not None:
        out = (out - mean[:, :, None, None]) * rstd[:, :, None, None]
    if a is not None and b is not None and index is not None:
        per_pixel_a, per_pixel_b = (v.astype(np.float64)[index].transpose(0, 3, 1, 2) for v in (a, b))  # [N, C, H, W]
        out = per_pixel_a * out + per_pixel_b
    return np.where(out < 0, SLOPE * out, out) if leaky else out


def modulate(
    isa: Isa,
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
    """out = act(a[index] * ((x - mean) * rstd) + b[index]); see `kernels.ops.modulate.modulate_numpy`.

    Args:
        x: plain map T [N, H >> shift, CB, W >> shift, 32].
        entries: of each image, or None with index: a = 1, b = 0.
        index: int32 [N, H, W], rows of the image's entries.
        out: padded map I [N, H + 2, CB, W + 2, 32], out, with its border.
        mean, rstd: float32 [N, CB * 32], or None.
        shift: 1 reads x upsampled by 2.
        leaky: leaky ReLU of slope 0.2.
    """
    expect_rank("modulate", "out", out, 5)
    n, height, n_blocks, width = out.shape[0], out.shape[1] - 2, out.shape[2], out.shape[3] - 2
    expect("modulate", "out", out, storage_dtype(input_dtype(isa)), (n, height + 2, n_blocks, width + 2, BLOCK))
    size = (n, height, n_blocks, width)
    arrays, numbers, kept = modulation("modulate", isa, x, entries, index, mean, rstd, size, shift, leaky)
    step = make_step("modulate", isa, {**arrays, "out": out}, **numbers)
    return Step(step.kind, step.record, (*step.arrays, *kept))


def modulation(
    op: str, isa: Isa, x: Array, entries: Entries | None, index: Int32 | None, mean: Float32 | None,
    rstd: Float32 | None, size: tuple[int, int, int, int], shift: int, leaky: bool,
) -> tuple[dict[str, Array | None], dict[str, int], tuple[Entries, ...]]:  # fmt: skip
    """The checked arguments of a modulation of n, height, blocks, width, but for out, and what they point to."""
    n, height, n_blocks, width = size
    dtype = storage_dtype(isa_dtype(isa))
    if shift not in (0, 1) or (shift and (height % 2 or width % 2)):
        raise StepError(f"[{op}] expected shift 0, or 1 with even sizes, but got {shift} for {height}x{width}")
    if (entries is None) != (index is None) or (mean is None) != (rstd is None):
        raise StepError(f"[{op}] expected entries with index and mean with rstd but got one of them alone")
    expect(op, "x", x, dtype, (n, height >> shift, n_blocks, width >> shift, BLOCK))
    arrays: dict[str, Array | None] = {"x": x, "index": index, "mean": mean, "rstd": rstd}
    kept: tuple[Entries, ...] = ()
    if entries is not None and index is not None:
        if (len(entries.rows), entries.blocks, entries.dtype) != (n, n_blocks, dtype):
            raise StepError(
                f"[{op}] expected entries of {n} images, {n_blocks} blocks of {dtype}, "
                f"but got {len(entries.rows)} images, {entries.blocks} blocks of {entries.dtype}"
            )
        expect(op, "index", index, np.int32, (n, height, width))
        arrays |= {"entries": entries.addresses, "entry_rows": entries.rows}
        kept = (entries,)  # and with it whatever tables it is set to later
    for name, statistic in (("mean", mean), ("rstd", rstd)):
        if statistic is not None:
            expect(op, name, statistic, np.float32, (n, n_blocks * BLOCK))
    numbers = {"n": n, "height": height, "width": width, "blocks": n_blocks, "shift": shift, "leaky": int(leaky)}
    return arrays, numbers, kept
