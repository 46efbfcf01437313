"""Time on a GPU: CUDA events around one call with a cold L2 cache, and medians; and the bandwidth of a copy."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

# More than the L2 cache of any GPU. Filling it also takes the GPU so long that the host has queued all launches of the
# call before the GPU begins them; otherwise the host's time would be measured.
FLUSH_BYTES = 512 << 20
WARM_UPS, REPEATS = 5, 30


def milliseconds(call: Callable[[], object]) -> float:
    """The median of 30 calls, each with a cold cache."""
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
    """The bandwidth of a copy by PyTorch that reads size / 2 bytes and writes size / 2 bytes."""
    source = torch.empty(max(size // 2, 1), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source)) / 1e6
