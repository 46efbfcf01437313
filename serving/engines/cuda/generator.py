"""The torch engine's codebook form on CUDA: our kernels, PyTorch's convs, one program for each shape of batch."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.cuda.host.library import Library
from serving.engines.cuda.codebooks import MapCodebooks, bucket_of, keep_maps, place_maps
from serving.engines.cuda.keys import MapKey, keys_of
from serving.engines.cuda.program import Bucket, CudaProgram
from serving.engines.cuda.weights import cuda_weights
from spade_core.models.generator import Generator
from spade_core.types import Symbols

CACHE_BYTES = 2 << 30
PROGRAMS = 8  # shapes of batches whose memory is kept; the least recently used goes


@dataclass
class CudaTimes:
    """Seconds of one call on the device, and what it found. A plan that needed a larger bucket than was expected has
    codebooks and convs made twice."""

    plan_s: float = 0.0
    codebook_s: float = 0.0
    convs_s: float = 0.0
    rows: int = 0
    pixels: int = 0
    cached: int = 0


@dataclass(frozen=True)
class _Planned:
    """A batch of new maps in a program's own memory: its bucket, and the offsets of patches5."""

    bucket: Bucket
    offsets: Sequence[int]


class CudaGenerator:
    """Runs a generator on one device. Calls from several threads take turns on the device; their copies overlap.

    Args:
        generator: float32, in eval mode; it is only read.
        dtype: of weights and activations; sums are float32.
        cache_bytes: of plans and codebooks kept for label maps that come again; 0 keeps none.
        library: the CUDA kernels.
    """

    def __init__(
        self,
        generator: Generator,
        dtype: torch.dtype,
        device: torch.device,
        library: Library,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._weights = cuda_weights(generator, dtype, device)
        self._library, self._device = library, device
        self._programs: OrderedDict[tuple[int, ...], CudaProgram] = OrderedDict()
        self._cache: OrderedDict[MapKey, MapCodebooks] = OrderedDict()
        self._cache_limit, self._cached_bytes = cache_bytes, 0
        self._lock = threading.Lock()
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def run(
        self, symbols: Symbols, style: npt.NDArray[np.float32] | None, *, values: bool, times: CudaTimes | None = None
    ) -> Tensor:
        """Symbols [N, H, W] and style [N, 256] -> on the CPU, pixels uint8 [N, H, W, 3] or values float32 [N, 3, H, W].

        Equal maps, and maps in the cache, are planned once. `times` does not make it wait.
        """
        keys, clock = keys_of(symbols), _Clock(self._device, times is not None)
        times = times or CudaTimes()
        with self._lock:
            program = self._program(symbols.shape)
            program.load(symbols, style)
            found = {key: self._cache[key] for key in keys if key in self._cache}
            for key in found:
                self._cache.move_to_end(key)
            missing = list(dict.fromkeys(key for key in keys if key not in found))
            times.cached += sum(key in found for key in keys)
            clock.lap("begun")
            planned = None
            if len(missing) == len(keys):  # nothing to put together: planned where the convs read it
                planned = self._plan_and_draw(program, times, clock)
            else:
                found |= self._compute(symbols, keys, missing, times, clock)
                self._draw_kept(program, [found[key] for key in keys], times)
            clock.lap("convs_s")
            copied = self._to_host(program.values if values else program.pixels)
            if planned is not None and self._cache_limit:  # while the device works
                self._put(
                    missing, keep_maps(planned.bucket.codebooks, program.plan, planned.offsets, self._weights)
                )  # fmt: skip
        out = copied()
        clock.add_to(times)
        return out

    def _to_host(self, source: Tensor) -> Callable[[], Tensor]:
        """Start the copy to the host; the result waits for it. The next call may write to `source` at once."""
        out = source.clone()
        if self._copies is None:
            return lambda: out
        done = torch.cuda.current_stream(self._device).record_event()
        host = torch.empty(out.shape, dtype=out.dtype, pin_memory=True)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(done)
            host.copy_(out, non_blocking=True)
            out.record_stream(self._copies)
            copied = self._copies.record_event()

        def wait() -> Tensor:
            copied.synchronize()
            return host

        return wait

    def _plan_and_draw(self, program: CudaProgram, times: CudaTimes, clock: _Clock) -> _Planned:
        """Plan, codebooks and image of new maps.

        The host has to know how many rows there are, but need not wait for it: codebooks and image are launched in the
        bucket that was enough so far, and again in a larger one in the rare case that it was not.
        """
        program.find()
        clock.lap("plan_s")
        bucket = program.likely()
        if bucket is not None:
            bucket.compute()
            clock.lap("codebook_s")
            bucket.convs()
            clock.lap("convs_s")
        size, offsets = self._read_plan(program, times)
        if bucket is None or bucket.size < size:
            bucket = program.bucket()
            bucket.compute()
            clock.lap("codebook_s")
            bucket.convs()
        return _Planned(bucket, offsets)

    def _read_plan(self, program: CudaProgram, times: CudaTimes) -> tuple[int, Sequence[int]]:
        """The bucket that the plan of a program needs, and the offsets of patches5. Waits for the plan."""
        plan = program.plan
        _, offsets = plan.read_offsets()
        ends = offsets[:: plan.n]
        rows = [ends[i + 1] - ends[i] for i in range(len(plan.sizes))]
        times.rows, times.pixels = sum(rows), plan.index.numel()
        size = bucket_of(rows, plan.sizes, plan.n)
        program.needs(size)
        return size, offsets

    def _compute(
        self, symbols: Symbols, keys: Sequence[MapKey], missing: Sequence[MapKey], times: CudaTimes, clock: _Clock
    ) -> dict[MapKey, MapCodebooks]:
        """Plans and codebooks of the maps that are not kept yet."""
        if not missing:
            return {}
        maps = symbols[[keys.index(key) for key in missing]]
        program = self._program(maps.shape)
        program.load(maps, None)
        program.find()
        clock.lap("plan_s")
        _, offsets = self._read_plan(program, times)
        bucket = program.bucket()
        bucket.compute()
        kept = keep_maps(bucket.codebooks, program.plan, offsets, self._weights)
        self._put(missing, kept)
        clock.lap("codebook_s")
        return dict(zip(missing, kept, strict=True))

    def _draw_kept(self, program: CudaProgram, maps: Sequence[MapCodebooks], times: CudaTimes) -> None:
        """The images of maps whose codebooks are kept, one for each image."""
        distinct, plan = {id(one): one for one in maps}.values(), program.plan
        rows = [sum(one.rows[level] for one in distinct) for level in range(len(plan.sizes))]
        program.needs(bucket_of(rows, plan.sizes, plan.n))
        bucket = program.bucket()
        place_maps(maps, bucket.codebooks, plan, self._weights)
        times.rows, times.pixels = sum(sum(one.rows) for one in maps), sum(one.pixels for one in maps)
        bucket.convs()

    def _put(self, keys: Sequence[MapKey], maps: Sequence[MapCodebooks]) -> None:
        for key, one in zip(keys, maps, strict=True):
            if one.bytes > self._cache_limit:
                continue
            self._cache[key] = one
            self._cached_bytes += one.bytes
        while self._cached_bytes > self._cache_limit:
            self._cached_bytes -= self._cache.popitem(last=False)[1].bytes

    def _program(self, shape: tuple[int, ...]) -> CudaProgram:
        if shape not in self._programs:
            self._programs[shape] = CudaProgram(self._weights, shape, self._library)  # type: ignore[arg-type]
        self._programs.move_to_end(shape)
        if len(self._programs) > PROGRAMS:
            self._programs.popitem(last=False)
        return self._programs[shape]


class _Clock:
    """Marks on the device's stream, which nobody waits for until the call is over; if not `measures`, none."""

    def __init__(self, device: torch.device, measures: bool) -> None:
        self._device, self._measures = device, measures
        self._laps: list[tuple[str, torch.cuda.Event | float]] = []

    def lap(self, name: str) -> None:
        """The time since the lap before belongs to a field of CudaTimes; that before the first to none."""
        if self._measures:
            self._laps.append((name, self._now()))

    def add_to(self, times: CudaTimes) -> None:
        """After the call's work on the device: add up."""
        for (_, before), (name, now) in pairwise(self._laps):
            if isinstance(before, float) or isinstance(now, float):
                assert isinstance(before, float)
                assert isinstance(now, float)
                seconds = now - before
            else:
                seconds = before.elapsed_time(now) / 1e3
            setattr(times, name, getattr(times, name) + seconds)

    def _now(self) -> torch.cuda.Event | float:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
