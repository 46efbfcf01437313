"""The torch engine's codebook form on CUDA: our kernels, PyTorch's convs, one program for each shape of batch."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.cuda.library import Library
from serving.engines.cuda_codebooks import MapCodebooks, bucket_of, keep_maps, place_maps
from serving.engines.cuda_program import Bucket, CudaProgram
from serving.engines.cuda_weights import cuda_weights
from spade_core.generator import Generator

Symbols = npt.NDArray[np.uint16]

CACHE_BYTES = 2 << 30
PROGRAMS = 8  # shapes of batches whose memory is kept; the least recently used goes


@dataclass
class CudaTimes:
    """Seconds of one call on the device, and what it found."""

    plan_s: float = 0.0
    codebook_s: float = 0.0
    convs_s: float = 0.0
    rows: int = 0
    pixels: int = 0
    cached: int = 0


@dataclass(frozen=True)
class _New:
    """Maps planned in a program's own memory: their keys, and the offsets of patches5."""

    keys: Sequence[bytes]
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
        self._cache: OrderedDict[bytes, MapCodebooks] = OrderedDict()
        self._cache_limit, self._cached_bytes = cache_bytes, 0
        self._lock = threading.Lock()
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def run(
        self, symbols: Symbols, style: npt.NDArray[np.float32] | None, *, values: bool, times: CudaTimes | None = None
    ) -> Tensor:
        """Symbols [N, H, W] and style [N, 256] -> on the CPU, pixels uint8 [N, H, W, 3] or values float32 [N, 3, H, W].

        Equal maps, and maps in the cache, are planned once. With `times`, waits between the parts to measure them.
        """
        clock = _Clock(self._device, times is not None)
        times = times or CudaTimes()
        with self._lock:
            program = self._program(symbols.shape)
            program.load(symbols, style)
            bucket, new = self._codebooks(symbols, program, times, clock)
            bucket.convs()
            times.convs_s += clock.lap()
            if new and self._cache_limit:
                self._put(new.keys, keep_maps(bucket.codebooks, program.plan, new.offsets, self._weights))
            out = (program.values if values else program.pixels).clone()  # the next call writes there again
            done = torch.cuda.current_stream(self._device).record_event() if self._copies is not None else None
        return self._to_host(out, done)

    def _to_host(self, out: Tensor, done: torch.cuda.Event | None) -> Tensor:
        if self._copies is None or done is None:
            return out
        host = torch.empty(out.shape, dtype=out.dtype, pin_memory=True)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(done)
            host.copy_(out, non_blocking=True)
            out.record_stream(self._copies)
            copied = self._copies.record_event()
        copied.synchronize()
        return host

    def _codebooks(
        self, symbols: Symbols, program: CudaProgram, times: CudaTimes, clock: _Clock
    ) -> tuple[Bucket, _New | None]:
        """The bucket with the codebooks of every image in place, and what of it is new and not kept yet."""
        keys = [_key(one) for one in symbols]
        found = {key: self._cache[key] for key in keys if key in self._cache}
        for key in found:
            self._cache.move_to_end(key)
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        times.cached += sum(key in found for key in keys)
        sizes, n = program.plan.sizes, len(symbols)
        if len(missing) == n:  # nothing to put together: planned where the convs read it
            bucket, offsets = self._compute(program, times, clock)
            return bucket, _New(missing, offsets)
        if missing:
            maps = symbols[[keys.index(key) for key in missing]]
            other = self._program(maps.shape)
            other.load(maps, None)
            computed, offsets = self._compute(other, times, clock)
            kept = keep_maps(computed.codebooks, other.plan, offsets, self._weights)
            found |= dict(zip(missing, kept, strict=True))
            self._put(missing, kept)
        ordered = [found[key] for key in keys]
        distinct = {id(one): one for one in ordered}.values()
        rows = [sum(one.rows[level] for one in distinct) for level in range(len(sizes))]
        bucket = program.bucket(bucket_of(rows, sizes, n))
        place_maps(ordered, bucket.codebooks, program.plan, self._weights)
        times.rows, times.pixels = sum(sum(one.rows) for one in ordered), sum(one.pixels for one in ordered)
        times.codebook_s += clock.lap() if missing else 0.0
        return bucket, None

    def _compute(self, program: CudaProgram, times: CudaTimes, clock: _Clock) -> tuple[Bucket, list[int]]:
        """Plan and codebooks of a program's symbols, and the offsets of its patches5."""
        plan = program.plan
        clock.lap()
        program.find()
        _, offsets = plan.read_offsets()
        times.plan_s += clock.lap()
        ends = offsets[:: plan.n]
        rows = [ends[i + 1] - ends[i] for i in range(len(plan.sizes))]
        bucket = program.bucket(bucket_of(rows, plan.sizes, plan.n))
        clock.lap()
        bucket.compute()
        times.codebook_s += clock.lap()
        times.rows, times.pixels = sum(rows), plan.index.numel()
        return bucket, offsets

    def _put(self, keys: Sequence[bytes], maps: Sequence[MapCodebooks]) -> None:
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
    """Seconds between laps; without `measures`, does not wait for the device and says 0."""

    def __init__(self, device: torch.device, measures: bool) -> None:
        self._device, self._measures = device, measures
        self._last = self._now()

    def lap(self) -> float:
        now, before = self._now(), self._last
        self._last = now
        return now - before

    def _now(self) -> float:
        if not self._measures:
            return 0.0
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _key(symbols: Symbols) -> bytes:
    digest = hashlib.blake2b(repr(symbols.shape).encode(), digest_size=16)
    digest.update(symbols.tobytes())
    return digest.digest()
