"""Measures the parts of a call on the device without waiting for it."""

from __future__ import annotations

import time
from itertools import pairwise

import torch

from serving.engines.timings import Timings


class Clock:
    """Marks on the device's stream, read only when the call is over. Without `measures` there are no marks."""

    def __init__(self, device: torch.device, measures: bool) -> None:
        self._device, self._measures = device, measures
        self._laps: list[tuple[str, torch.cuda.Event | float]] = []

    def lap(self, name: str) -> None:
        """Add the time since the previous lap to a field of Timings. The first lap only starts the clock."""
        if self._measures:
            self._laps.append((name, self._now()))

    def add_to(self, timings: Timings) -> None:
        """Add the laps to `timings`, once the device has finished the call."""
        for (_, before), (name, now) in pairwise(self._laps):
            if isinstance(before, float) or isinstance(now, float):
                assert isinstance(before, float)
                assert isinstance(now, float)
                seconds = now - before
            else:
                seconds = before.elapsed_time(now) / 1e3
            setattr(timings, name, getattr(timings, name) + seconds)

    def _now(self) -> torch.cuda.Event | float:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
