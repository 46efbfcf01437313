"""Time on a GPU: CUDA events around one call, a cold second-level cache, medians; and a copy to compare with."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

# More than the second-level cache of any GPU, and so long to fill that a call of a few launches from Python is queued
# before the GPU comes to it: else the time would be the host's.
FLUSH_BYTES = 512 << 20
WARM_UPS, REPEATS = 5, 30


def milliseconds(call: Callable[[], object]) -> float:
    """Median of 30 calls, each after the cache was filled with something else."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(WARM_UPS):
        call()
    times: list[float] = []
    for i in range(REPEATS):
        flush.fill_(i)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)))
    return statistics.median(times)


def copy_gb_per_s(size: int) -> float:
    """Bytes read and written per second by PyTorch's copy of half as many bytes as `size`."""
    source = torch.empty(max(size // 2, 1), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source)) / 1e6
