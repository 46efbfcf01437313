"""Time on a GPU: CUDA events around one call with a cold L2 cache, and medians; and the bandwidth of a copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

CACHE_BYTES = 512 << 20  # more than the L2 cache of any GPU
WARM_UPS, REPEATS = 5, 30
MOST_SLEEP_S = 0.05
_CYCLES_PER_S = 2e9  # at most: a sleep is at least as long as asked


class Clock:
    """Measures calls on a device. On the CPU, in a rehearsal, one call after the other with the host's clock.

    Each call on a GPU finds a cold cache without dirty lines: a buffer is filled, which evicts what was there, and then
    a second one is read, which writes the first one's lines back; else the call would pay for that. The stream then
    sleeps for twice the host's time of the call, so that all launches of the call are queued before the first event:
    else the host's time, some 0.3 ms of Python, would be measured.
    """

    def __init__(self, device: torch.device, repeats: int = REPEATS) -> None:
        self._device, self._repeats = device, repeats
        if device.type == "cuda":
            self._filled = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device)
            self._read = torch.ones(CACHE_BYTES // 8, dtype=torch.int64, device=device)

    def milliseconds(self, call: Callable[[], object]) -> float:
        """The median of the calls, each with a cold cache."""
        if self._device.type != "cuda":
            return 1e3 * _host_seconds(call)
        for _ in range(WARM_UPS - 1):
            call()
        torch.cuda.synchronize()
        sleep = min(2 * _host_seconds(call), MOST_SLEEP_S)
        times: list[float] = []
        while len(times) < self._repeats:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            self._filled.fill_(len(times))
            self._read.sum()
            torch.cuda._sleep(int(sleep * _CYCLES_PER_S))  # type: ignore[no-untyped-call]
            begin.record()
            call()
            end.record()
            # Whether the stream woke up before all launches were queued.
            late = begin.query()  # type: ignore[no-untyped-call]
            end.synchronize()
            if late and sleep < MOST_SLEEP_S:
                sleep = min(2 * sleep, MOST_SLEEP_S)
                continue
            times.append(float(begin.elapsed_time(end)))
        return statistics.median(times)

    def copy_gb_per_s(self, size: int) -> float:
        """The bandwidth of a copy by PyTorch that reads size / 2 bytes and writes size / 2 bytes."""
        source = torch.empty(max(size // 2, 1), dtype=torch.uint8, device=self._device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.milliseconds(lambda: target.copy_(source)) / 1e6


def _host_seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return max(time.perf_counter() - began, 1e-5)
