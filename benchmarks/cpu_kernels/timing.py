"""Time one kernel, its peers, and a copy of as many bytes, after the results are checked."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.isa import Isa
from kernels.layouts import Array, DType, Float32
from kernels.native import native
from kernels.ops.plan import Level

PEAK_OPERATIONS = 10**9
MEMORY_BYTES = 256 << 20  # far more than any cache
CACHE_BYTES = 512 << 10  # for each thread: within a core's second-level cache
ROUNDS = 2
PAUSE_S = 0.02

Call = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """One implementation: `call` does the work and is timed; `read` returns its results in a fixed order."""

    call: Call
    read: Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Work:
    """What one kernel does on one shape.

    Attributes:
        isa: the kernel's ISA, or "any" for a kernel without one.
        operations: additions and multiplications; a tanh counts as one, a comparison as none.
        bytes: bytes read and written if every cache were large enough.
    """

    kernel: str
    shape: str
    dtype: str
    isa: str
    threads: int
    operations: int
    bytes: int


@dataclass(frozen=True)
class Case(Work):
    """One kernel on one shape, and its peers.

    Attributes:
        bound: what limits the kernel: the multiply-add peak, the int8 peak (twice as high), or a copy of as many bytes.
        limits: for each output, the largest allowed error against a peer, relative to the output's largest value.
    """

    bound: Literal["peak", "int8 peak", "copy"]
    limits: tuple[float, ...]
    native: Contender
    peers: Mapping[str, Contender]


@dataclass(frozen=True)
class Row(Work):
    """The times of a case.

    Attributes:
        share: the part of `share_of` that the kernel reaches; 1 is all of it.
        ratio: the best peer's median time over the kernel's.
        ms_turns, peer_ms_turns: every timed call of the kernel and of the best peer, in order.
    """

    ms_median: float
    ms_min: float
    gflop_per_s: float
    gb_per_s: float
    copy_gb_per_s: float
    share: float
    share_of: str
    peer: str
    peer_ms_median: float
    peer_ms_min: float
    ratio: float
    ms_turns: tuple[float, ...]
    peer_ms_turns: tuple[float, ...]


def size_name(level: Level) -> str:
    """Return a level's "HxW"."""
    return "x".join(str(size) for size in level.index.shape[1:])


def torch_contender(call: Callable[[], Tensor | tuple[Tensor, ...]]) -> Contender:
    """Return the contender of PyTorch code that returns one tensor or several."""

    def read() -> Sequence[Array]:
        result = call()
        return [one.double().numpy() for one in ((result,) if isinstance(result, Tensor) else result)]

    return Contender(call, read)


def torch_dtype(dtype: DType) -> torch.dtype:
    return torch.bfloat16 if dtype == "bf16" else torch.float32


def rounding(dtype: DType) -> float:
    """Return the largest relative difference of two sums that differ by rounding alone, stored in the dtype."""
    return 2.0**-7 if dtype == "bf16" else 2.0**-16


def exact(random: np.random.Generator, *shape: int, scale: float = 1.0) -> Float32:
    """Draw normal random float32 values that bf16 stores exactly, so that both dtypes get the same data."""
    values = torch.from_numpy(random.standard_normal(shape, np.float32) * np.float32(scale))
    return np.asarray(values.bfloat16().float().numpy(), np.float32)


def peak(isa: Isa, repeats: int = 20) -> float:
    """Measure the multiply-adds of one core from registers, GFLOP/s: the best of `repeats`."""
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        operations = native.conv_peak(get_args(Isa).index(isa), PEAK_OPERATIONS)
        rates.append(operations / (time.perf_counter() - began) / 1e9)
    return max(rates)


# ---- Copy ----


def copies(moved: int) -> dict[str, Call]:
    """Return copies that read plus write `moved` bytes: PyTorch's on its threads, and NumPy's past the caches."""
    source, target = (
        torch.ones(max(moved // 2, 1), dtype=torch.uint8),
        torch.ones(max(moved // 2, 1), dtype=torch.uint8),
    )
    from_array, to_array = source.numpy(), target.numpy()
    return {"copy, torch": lambda: target.copy_(source), "copy, numpy": lambda: np.copyto(to_array, from_array)}


def copy_rates(threads: int, repeats: int = 20) -> dict[str, float]:
    """Measure copies from memory and from the second-level caches, GB/s read plus written: the best of `repeats`."""
    torch.set_num_threads(threads)
    rates = {}
    for name, moved in (("memory", MEMORY_BYTES), ("cache", CACHE_BYTES * threads)):
        times = milliseconds(copies(moved), repeats)
        rates[name] = moved / min(min(one) for one in times.values()) / 1e6
    return rates


# ---- Measure ----


def milliseconds(calls: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Time every call in rounds that alternate, so that all calls meet the same state of the machine.

    A round starts with a pause, because thread pools spin for a while after their last work and would slow the next
    call. An untimed call follows, which wakes the call's threads and warms its caches.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(min(ROUNDS, repeats)):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            call()
            for _ in range(turn, repeats, ROUNDS):
                began = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def check(name: str, peer: str, got: npt.ArrayLike, expected: npt.ArrayLike, limit: float) -> None:
    """Raise RuntimeError if two results differ by more than `limit` of the largest value."""
    want = np.asarray(expected, np.float64)
    difference = np.abs(np.asarray(got, np.float64) - want)
    error, allowed = float(difference.max()), limit * float(np.abs(want).max())
    if not error <= allowed:
        raise RuntimeError(
            f"[benchmark] expected {name} within {allowed:.3g} of {peer} but got {error:.3g}; run the kernel's tests"
        )


def measure(case: Case, core_peak: float | None, repeats: int) -> Row:
    """Check a case against every peer, then time all. core_peak: GFLOP/s of one core, if the peak bounds the case."""
    torch.set_num_threads(case.threads)
    with torch.inference_mode():
        case.native.call()
        got = case.native.read()
        for name, peer in case.peers.items():
            for one, expected, limit in zip(got, peer.read(), case.limits, strict=True):
                check(f"{case.kernel} {case.shape} on {case.isa}", name, one, expected, limit)
        copy_calls = copies(case.bytes)
        calls = {"native": case.native.call, **{name: peer.call for name, peer in case.peers.items()}, **copy_calls}
        times = milliseconds(calls, repeats)
    medians = {name: statistics.median(of) for name, of in times.items()}
    best = min(case.peers, key=lambda name: medians[name])
    ms, copy_rate = medians["native"], case.bytes / min(medians[name] for name in copy_calls) / 1e6
    flops, rate = case.operations / ms / 1e6, case.bytes / ms / 1e6
    if case.bound == "copy":
        share = rate / copy_rate
    elif core_peak is None:
        raise ValueError(f"[benchmark] expected core_peak for {case.kernel}, which the peak bounds, but got None")
    else:
        share = flops / core_peak / case.threads / (2 if case.bound == "int8 peak" else 1)
    return Row(
        case.kernel, case.shape, case.dtype, case.isa, case.threads, case.operations, case.bytes,
        ms, min(times["native"]), flops, rate, copy_rate, share, case.bound,
        best, medians[best], min(times[best]), medians[best] / ms, tuple(times["native"]), tuple(times[best]),
    )  # fmt: skip
