"""The native kernels, one by one: speed, share of the processor's peak, and the best peer on the same data.

    python -m benchmarks.kernels --threads 2 --json out.json

The peak is that of the conv's own multiply-add from registers, measured in the same run, on one core; the share divides
by it and by the threads. Weights are packed before the clock starts, for the kernel and for its peers. A result that
differs from the peer's by more than rounding stops the run.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.model import machine
from kernels import _native, steps
from kernels.layouts import DType, Float32, Float64, empty_plain, from_plain, pad_channels, to_padded

CONV_SHAPES = (
    (1024, 1024, 8),
    (1024, 1024, 16),
    (1024, 512, 32),
    (512, 512, 32),
    (512, 256, 64),
    (256, 256, 64),
    (256, 128, 128),
    (128, 128, 128),
    (128, 64, 256),
    (64, 64, 256),
    (64, 3, 256),
)
"""(in channels, out channels, height and width) of the 3x3 convs of the COCO generator at 256x256."""

PEAK_OPERATIONS = 10**9

Call = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One kernel on one shape. share: of the peak of `threads` cores, 0..1; ratio: the best peer's time over ours."""

    kernel: str
    shape: str
    dtype: DType
    tier: str
    threads: int
    ms_median: float
    ms_min: float
    gflop_per_s: float
    share: float
    peer: str
    peer_ms_median: float
    peer_ms_min: float
    ratio: float


def peak(tier: steps.Tier, repeats: int = 20) -> float:
    """GFLOP/s of one core: the best of `repeats`."""
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        operations = _native.conv_peak(get_args(steps.Tier).index(tier), PEAK_OPERATIONS)
        rates.append(operations / (time.perf_counter() - began) / 1e9)
    return max(rates)


def milliseconds(calls: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    """Times of every call, taken in turn so that all meet the same state of the machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - began) * 1e3)
    return times


# ---- Conv ----


@dataclass(frozen=True)
class ConvData:
    """Input [1, Ci, size, size], weight [Co, Ci, 3, 3] and bias [Co], all exact in the dtype."""

    x: Float32
    weight: Float32
    bias: Float32


def draw_conv(in_channels: int, out_channels: int, size: int) -> ConvData:
    random = np.random.default_rng(0)

    def exact(*shape: int) -> Float32:
        values = torch.from_numpy(random.standard_normal(shape, np.float32)).bfloat16().float()
        return np.asarray(values.numpy(), np.float32)

    weight = exact(out_channels, in_channels, 3, 3)
    return ConvData(exact(1, in_channels, size, size), weight, exact(out_channels))


def native_conv(tier: steps.Tier, data: ConvData, pool: steps.Pool) -> tuple[Call, Callable[[], Float64]]:
    """A call of the kernel, and a function that reads its output [1, Co, H, W]."""
    dtype, (out_channels, in_channels, _, _) = steps.tier_dtype(tier), data.weight.shape
    y = empty_plain(1, out_channels, data.x.shape[2], data.x.shape[3], dtype)
    step = steps.conv(
        tier, to_padded(data.x, dtype), steps.pack_conv(tier, data.weight), pad_channels(data.bias), None, y,
        in_channels=in_channels, out_channels=out_channels, kernel_size=3,
    )  # fmt: skip
    program = steps.Program([step])
    return lambda: steps.run(program, pool), lambda: from_plain(y, out_channels)


def torch_convs(dtype: DType, data: ConvData) -> dict[str, Callable[[], Tensor]]:
    """PyTorch's conv, channels last: as eager code calls it, and oneDNN with weights packed before."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    x, weight = (torch.from_numpy(array).to(kind, memory_format=torch.channels_last) for array in (data.x, data.weight))
    bias = torch.from_numpy(data.bias).to(kind)
    calls: dict[str, Callable[[], Tensor]] = {"torch": lambda: F.conv2d(x, weight, bias, padding=1)}
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        geometry = ([1, 1], [1, 1], [1, 1], 1)  # padding, stride, dilation, groups
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
        calls["oneDNN, packed"] = lambda: torch.ops.mkldnn._convolution_pointwise(
            x, packed, bias, *geometry, "none", [], ""
        )
    return calls


def check_conv(name: str, peer: str, got: Float64, expected: Float64, dtype: DType) -> None:
    """Raises RuntimeError where two convs differ by more than their roundings: what is wrong has no time."""
    scale = float(np.abs(expected).max())
    error = float(np.abs(got - expected).max())
    limit = scale * (2.0**-7 if dtype == "bf16" else 2.0**-16)
    if not error <= limit:
        raise RuntimeError(
            f"[benchmark] expected {name} within {limit:.3g} of {peer} but got {error:.3g}; run the kernel's tests"
        )


def conv_row(tier: steps.Tier, shape: tuple[int, int, int], pool: steps.Pool, core_peak: float, repeats: int) -> Row:
    """Time one 3x3 conv and its peers."""
    in_channels, out_channels, size = shape
    dtype, data = steps.tier_dtype(tier), draw_conv(*shape)
    call, output = native_conv(tier, data, pool)
    peers = torch_convs(dtype, data)
    with torch.inference_mode():
        call()
        for name, peer in peers.items():
            check_conv(f"conv {shape} on {tier}", name, output(), peer().double().numpy(), dtype)
        times = milliseconds({"native": call, **peers}, repeats)
    native = times.pop("native")
    best = min(times, key=lambda name: statistics.median(times[name]))
    rate = 2 * 9 * in_channels * out_channels * size**2 / statistics.median(native) / 1e6
    return Row(
        "conv 3x3", f"{in_channels}->{out_channels} {size}x{size}", dtype, tier, pool.threads,
        statistics.median(native), min(native), rate, rate / core_peak / pool.threads,
        best, statistics.median(times[best]), min(times[best]),
        statistics.median(times[best]) / statistics.median(native),
    )  # fmt: skip


# ---- Report ----


def table(rows: list[Row], title: str) -> Table:
    out = Table(
        "kernel", "shape", "ms", "(min)", "GFLOP/s", "% of peak", "peer", "peer ms", "(min)", "ratio", title=title
    )
    for row in rows:
        out.add_row(
            row.kernel, row.shape, f"{row.ms_median:.2f}", f"{row.ms_min:.2f}", f"{row.gflop_per_s:.0f}",
            f"{100 * row.share:.0f}", row.peer, f"{row.peer_ms_median:.2f}", f"{row.peer_ms_min:.2f}",
            f"{row.ratio:.2f}",
        )  # fmt: skip
    return out


@click.command()
@click.option("--tiers", default=",".join(steps.supported_tiers()), show_default="all of this processor",
              help="Comma-separated tiers.")  # fmt: skip
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="Of the kernels and of the peers."
)
@click.option("--repeats", default=10, show_default=True, type=click.IntRange(1), help="Timed calls of each.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
def main(tiers: str, threads: int, repeats: int, json_path: Path | None) -> None:
    """Time every native kernel on the shapes of the COCO generator; show its share of the peak and its best peer."""
    console, pool = Console(), steps.Pool(threads)
    torch.set_num_threads(threads)
    rows: list[Row] = []
    peaks: dict[str, float] = {}
    for tier in tiers.split(","):
        if tier not in steps.supported_tiers():
            raise click.BadParameter(f"expected tiers of {steps.supported_tiers()} but got {tier!r}")
        peaks[tier] = peak(tier)
        new = [conv_row(tier, shape, pool, peaks[tier], repeats) for shape in CONV_SHAPES]
        console.print(table(new, f"{tier}, {threads} threads, one core's peak {peaks[tier]:.0f} GFLOP/s"))
        rows += new
    if json_path:
        report = {"machine": machine(), "peak_gflop_per_s_per_core": peaks, "rows": [asdict(row) for row in rows]}
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
