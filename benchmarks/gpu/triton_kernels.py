"""Kernels in OpenAI's Triton, the GPU benchmark's peers; `benchmarks.gpu.triton_peers` launches them.

Maps are whole NHWC maps: [pixels, C]. A tile is ROWS pixels by WIDTH channels; neighbouring programs take the parts of
C of the same pixels. Sums are float32. CHANNELS is a compile-time constant: the compiler then knows that the offset of
a row is a multiple of CHANNELS, and uses 16-byte accesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import triton
import triton.language as tl
import triton.testing

from kernels.constants import SLOPE

_SLOPE = tl.constexpr(SLOPE)


def _bench(call: Callable[[], None], quantiles: Sequence[float]) -> list[float]:
    # A tenth of Triton's usual time for each configuration, because the whole benchmark has only minutes.
    times: list[float] = triton.testing.do_bench(call, warmup=3, rep=10, quantiles=quantiles)
    return times


def _tiles(*sizes: tuple[int, int]) -> list[triton.Config]:
    return [triton.Config({"TILE": tile}, num_warps=warps) for tile, warps in sizes]


@triton.autotune(_tiles((2048, 4), (4096, 4), (8192, 8)), key=["pixels", "CHANNELS"], do_bench=_bench)
@triton.jit
def modulate_dense(  # noqa: PLR0913 - Triton passes every pointer and size by itself
    x: tl.tensor,
    gamma: tl.tensor,
    beta: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    out: tl.tensor,
    pixels: tl.tensor,
    stride: tl.tensor,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """out = lrelu((x - mean) * rstd * (1 + gamma) + beta); programs are (tiles of an image x parts of C, images).

    The statistics of two images are `stride` elements apart: C, or 0 if all images share them. The first programs take
    the end of x, which the pass for the statistics has left in the cache.
    """
    ROWS: tl.constexpr = TILE // WIDTH
    PARTS: tl.constexpr = tl.cdiv(CHANNELS, WIDTH)
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    image = tl.num_programs(1) - 1 - tl.program_id(1)
    row = program // PARTS * ROWS + tl.arange(0, ROWS)
    channel = program % PARTS * WIDTH + tl.arange(0, WIDTH)
    known = channel < CHANNELS
    inside = (row < pixels)[:, None] & known[None, :]
    offset = (image * pixels + row)[:, None] * CHANNELS + channel[None, :]
    statistics = image * stride + channel
    value = tl.load(x + offset, mask=inside, eviction_policy="evict_first").to(tl.float32)
    scale = tl.load(gamma + offset, mask=inside, eviction_policy="evict_first").to(tl.float32)
    bias = tl.load(beta + offset, mask=inside, eviction_policy="evict_first").to(tl.float32)
    centre = tl.load(mean + statistics, mask=known)
    spread = tl.load(rstd + statistics, mask=known)
    value = (value - centre[None, :]) * spread[None, :] * (1 + scale) + bias
    value = tl.maximum(value, value * _SLOPE)
    tl.store(out + offset, value.to(out.dtype.element_ty), mask=inside)


@triton.autotune(_tiles((4096, 4), (8192, 8)), key=["PIXELS", "CHANNELS"], do_bench=_bench)
@triton.jit
def instance_statistics(  # noqa: PLR0913 - Triton passes every pointer and size by itself
    x: tl.tensor,
    parts: tl.tensor,
    ended: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    epsilon: tl.tensor,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """mean and rstd [N, C] of x; programs are (splits of an image x parts of C, images).

    parts: float32 [N, SPLITS, 2, C], scratch. ended: int32 [N, parts of C], counters, zero before and after the launch.
    The program that ends last adds the sums of all programs in one order. The sums are of x minus the first pixel of
    the image: without that, the square of the mean would cancel.
    """
    ROWS: tl.constexpr = TILE // WIDTH
    PARTS: tl.constexpr = tl.cdiv(CHANNELS, WIDTH)
    LENGTH: tl.constexpr = tl.cdiv(tl.cdiv(PIXELS, SPLITS), ROWS) * ROWS
    split = tl.program_id(0) // PARTS
    part = tl.program_id(0) % PARTS
    image = tl.program_id(1)
    channel = part * WIDTH + tl.arange(0, WIDTH)
    known = channel < CHANNELS
    plane = x + image * PIXELS * CHANNELS
    first = tl.load(plane + channel, mask=known, other=0).to(tl.float32)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    squares = tl.zeros((ROWS, WIDTH), tl.float32)
    for begin in range(0, LENGTH, ROWS):
        row = split * LENGTH + begin + tl.arange(0, ROWS)
        inside = (row < PIXELS)[:, None] & known[None, :]
        value = tl.load(plane + row[:, None] * CHANNELS + channel[None, :], mask=inside, other=0).to(tl.float32)
        value = tl.where(inside, value - first[None, :], 0.0)
        total += value
        squares += value * value
    sums = parts + image * SPLITS * 2 * CHANNELS + channel
    tl.store(sums + split * 2 * CHANNELS, tl.sum(total, 0), mask=known)
    tl.store(sums + split * 2 * CHANNELS + CHANNELS, tl.sum(squares, 0), mask=known)
    tl.debug_barrier()  # all threads must have written before the atomic addition publishes the sums
    counter = ended + image * PARTS + part
    if tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu") == SPLITS - 1:
        tl.store(counter, 0)
        each = sums[None, :] + tl.arange(0, SPLITS)[:, None] * 2 * CHANNELS
        # Reads from the L2 cache, because the L1 caches do not see each other's stores.
        sum_ = tl.sum(tl.load(each, mask=known[None, :], other=0, cache_modifier=".cg"), 0)
        square = tl.sum(tl.load(each + CHANNELS, mask=known[None, :], other=0, cache_modifier=".cg"), 0)
        centre = sum_ / PIXELS
        variance = tl.maximum(square / PIXELS - centre * centre, 0.0)
        tl.store(mean + image * CHANNELS + channel, first + centre, mask=known)
        tl.store(rstd + image * CHANNELS + channel, 1 / tl.sqrt_rn(variance + epsilon), mask=known)


def _of_shift(configs: list[triton.Config], _: dict[str, Any], **constants: Any) -> list[triton.Config]:
    # With SHIFT a thread holds the entries of four times as many pixels, so the largest tile would spill registers.
    return configs[:2] if constants["SHIFT"] else configs[1:]


@triton.autotune(
    _tiles((1024, 4), (2048, 4), (4096, 4)), key=["pixels", "CHANNELS", "SHIFT"], do_bench=_bench,
    prune_configs_by={"early_config_prune": _of_shift},
)  # fmt: skip
@triton.jit
def modulate_codebook(  # noqa: PLR0913 - Triton passes every pointer and size by itself
    x: tl.tensor,
    entries: tl.tensor,
    index: tl.tensor,
    out: tl.tensor,
    pixels: tl.tensor,
    COLUMNS: tl.constexpr,
    SHIFT: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """out = lrelu(a[index] x + b[index]); programs are (tiles of x x parts of C); x has COLUMNS columns.

    With SHIFT a program reads a pixel of x once for the four pixels of the output that it covers. All loads come before
    the first store, because the compiler cannot know that a store does not change the entries.
    """
    ROWS: tl.constexpr = TILE // WIDTH
    PARTS: tl.constexpr = tl.cdiv(CHANNELS, WIDTH)
    row = tl.program_id(0) // PARTS * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(0) % PARTS * WIDTH + tl.arange(0, WIDTH)
    present = row < pixels
    inside = present[:, None] & (channel < CHANNELS)[None, :]
    value = tl.load(x + row[:, None] * CHANNELS + channel[None, :], mask=inside, eviction_policy="evict_first")
    above = row
    if SHIFT:
        above = row // COLUMNS * (4 * COLUMNS) + row % COLUMNS * 2
    scales = ()  # type: tuple[Any, ...]
    biases = ()  # type: tuple[Any, ...]
    for part in tl.static_range(1 << 2 * SHIFT):
        entry = tl.load(index + above + part // 2 * (2 * COLUMNS) + part % 2, mask=present, other=0)
        here = entries + entry[:, None] * (2 * CHANNELS) + channel[None, :]
        scales = scales + (tl.load(here, mask=inside),)  # noqa: RUF005 - Triton has no unpacking into a tuple
        biases = biases + (tl.load(here + CHANNELS, mask=inside),)  # noqa: RUF005
    for part in tl.static_range(1 << 2 * SHIFT):
        result = scales[part].to(tl.float32) * value.to(tl.float32) + biases[part].to(tl.float32)
        result = tl.maximum(result, result * _SLOPE).to(out.dtype.element_ty)
        pixel = above + part // 2 * (2 * COLUMNS) + part % 2
        tl.store(out + pixel[:, None] * CHANNELS + channel[None, :], result, mask=inside)


def _products(*sizes: tuple[int, int, int, int, int]) -> list[triton.Config]:
    names = ("ROWS", "WIDTH", "DEPTH")
    return [
        triton.Config(dict(zip(names, size, strict=True)), num_warps=warps, num_stages=stages)
        for *size, warps, stages in sizes
    ]


# Rows, columns, depth, warps, stages. Every second stage goes to the indices, which are loaded ahead of their rows.
@triton.autotune(
    _products(
        (128, 128, 64, 8, 5), (128, 128, 64, 8, 7), (128, 128, 128, 8, 4), (64, 128, 64, 4, 5), (64, 128, 64, 4, 7)
    ), key=["rows", "COLUMNS"], do_bench=_bench,
)  # fmt: skip
@triton.jit
def codebook_product(  # noqa: PLR0913 - Triton passes every pointer and size by itself
    actv: tl.tensor,
    patches: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    entries: tl.tensor,
    rows: tl.tensor,
    COLUMNS: tl.constexpr,
    TAPS: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """entries = bias + sum over taps of actv[patches[:, tap]] x weight[tap]; programs are tiles of rows x columns."""
    PARTS: tl.constexpr = tl.cdiv(COLUMNS, WIDTH)
    row = tl.program_id(0) // PARTS * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % PARTS * WIDTH + tl.arange(0, WIDTH)
    depth = tl.arange(0, DEPTH)
    present = row < rows
    known = column < COLUMNS
    total = tl.zeros((ROWS, WIDTH), tl.float32) + tl.load(bias + column, mask=known, other=0)[None, :]
    for begin in range(0, TAPS * HIDDEN, DEPTH):
        source = tl.load(patches + row * TAPS + begin // HIDDEN, mask=present, other=0)
        within = tl.multiple_of(begin % HIDDEN, DEPTH)  # without this hint Triton 3.6 reads rows two bytes at a time
        left = tl.load(actv + source[:, None] * HIDDEN + within + depth[None, :])
        right = tl.load(weight + (begin + depth)[:, None] * COLUMNS + column[None, :], mask=known[None, :], other=0)
        total = tl.dot(left, right, total)
    inside = present[:, None] & known[None, :]
    tl.store(entries + row[:, None] * COLUMNS + column[None, :], total.to(entries.dtype.element_ty), mask=inside)
