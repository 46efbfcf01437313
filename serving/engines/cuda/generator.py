"""The codebook form of the torch engine on CUDA: our kernels, PyTorch's convs, one program for each shape of batch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.cuda.host.library import Library
from serving.engines.cuda.clock import Clock
from serving.engines.cuda.codebooks import MapCodebooks, bucket_of, keep_maps, place_maps
from serving.engines.cuda.program import Bucket, CudaProgram
from serving.engines.cuda.recorder import Recorder
from serving.engines.cuda.session import CudaMap, CudaSessions
from serving.engines.cuda.weights import cuda_weights
from serving.engines.kept import Guard, KeptMaps, Size
from serving.engines.map_cache import Lookup, MapCache, MapKey, keys_of
from serving.engines.timings import Timings
from spade_core.models.generator import Generator
from spade_core.types import Symbols

CACHE_BYTES = 2 << 30
PROGRAMS = 8  # shapes of batches whose programs are kept; the least recently used one is dropped


@dataclass(frozen=True)
class _Planned:
    """A planned batch of new maps in the memory of its program: the bucket, and the plan's offsets5 on the host."""

    bucket: Bucket
    offsets: Sequence[int]


class CudaGenerator:
    """Runs a generator on one device. Calls from several threads take turns on the device; their copies overlap.

    Args:
        generator: float32, in eval mode; it is only read.
        dtype: of weights and activations; sums are float32.
        library: the CUDA kernels.
        cache_bytes: most bytes of kept indices and codebooks of label maps; 0 keeps none.
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
        self.cache: MapCache[MapCodebooks] = MapCache(cache_bytes)
        self._lock = threading.Lock()
        self._sessions: CudaSessions | None = None
        self._recorder = Recorder(device)
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def kept_maps(self, limit: int, guard: Guard) -> KeptMaps:
        """The maps of sessions, in at most `limit` bytes of the device; see `KeptMaps`."""
        return KeptMaps(self._new_map, self._lock, limit, guard)

    def _new_map(self, size: Size) -> CudaMap:
        if self._sessions is None:  # the first session takes the memory of the patch store
            self._sessions = CudaSessions(
                self._weights, self._library, self._recorder, lambda size: self._program((1, *size))
            )
        return self._sessions.make(size)

    @torch.inference_mode()
    def run(
        self,
        symbols: Symbols,
        style: npt.NDArray[np.float32] | None,
        *,
        values: bool,
        timings: Timings | None = None,
    ) -> Tensor:
        """Symbols [N, H, W] and style [N, 256] -> pixels uint8 [N, H, W, 3] or values float32 [N, 3, H, W], on the CPU.

        A map that repeats, or is in the cache, is not planned again. Measuring `timings` adds no wait. A plan that
        needs a larger bucket than expected counts its codebooks and convs twice.
        """
        keys, clock = keys_of(symbols), Clock(self._device, timings is not None)
        timings = timings or Timings()
        with self._lock:
            program = self._program(symbols.shape)
            program.load(symbols, style)
            lookup = self.cache.look_up(keys)
            timings.cached_maps += lookup.hits
            clock.lap("begun")
            planned = None
            if len(lookup.missing) == len(keys):  # all maps are new and distinct: planned where the convs read
                planned = self._plan_and_draw(program, timings, clock)
            else:
                new = self._compute(symbols, lookup, timings, clock)
                self._draw_kept(program, lookup.complete(new), timings)
            clock.lap("convs_s")
            copied = self._to_host(program.values if values else program.pixels)
            if planned is not None and self.cache.limit:  # the host copies codebooks while the device draws
                kept = keep_maps(planned.bucket.codebooks, program.plan, planned.offsets, self._weights)
                self.cache.put(dict(zip(lookup.missing, kept, strict=True)))
        out = copied()
        clock.add_to(timings)
        return out

    def _to_host(self, source: Tensor) -> Callable[[], Tensor]:
        """Start the copy to the host. The returned function waits for it; `source` may be overwritten at once."""
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

    def _plan_and_draw(self, program: CudaProgram, timings: Timings, clock: Clock) -> _Planned:
        """Plan new maps, compute their codebooks, and draw their images.

        The right bucket is known only once the plan is read. To avoid a wait, codebooks and image are launched first in
        the bucket that sufficed for the last plans, and again in a larger bucket in the rare case that it is too small.
        """
        program.find()
        clock.lap("plan_s")
        bucket = program.likely()
        if bucket is not None:
            bucket.compute()
            clock.lap("codebook_s")
            bucket.convs()
            clock.lap("convs_s")
        size, offsets = self._read_plan(program, timings)
        if bucket is None or bucket.size < size:
            bucket = program.bucket()
            bucket.compute()
            clock.lap("codebook_s")
            bucket.convs()
        return _Planned(bucket, offsets)

    def _read_plan(self, program: CudaProgram, timings: Timings) -> tuple[int, Sequence[int]]:
        """The bucket that the plan of a program needs, and its offsets5. Waits for the plan."""
        plan = program.plan
        _, offsets = plan.read_offsets()
        ends = offsets[:: plan.n]
        rows = [ends[i + 1] - ends[i] for i in range(len(plan.sizes))]
        timings.distinct_share = sum(rows) / plan.index.numel()
        size = bucket_of(rows, plan.sizes, plan.n)
        program.needs(size)
        return size, offsets

    def _compute(
        self, symbols: Symbols, lookup: Lookup[MapCodebooks], timings: Timings, clock: Clock
    ) -> dict[MapKey, MapCodebooks]:
        """Plan the maps that are not in the cache, and compute and keep their codebooks."""
        if not lookup.missing:
            return {}
        maps = lookup.missing_maps(symbols)
        program = self._program(maps.shape)
        program.load(maps, None)
        program.find()
        clock.lap("plan_s")
        _, offsets = self._read_plan(program, timings)
        bucket = program.bucket()
        bucket.compute()
        kept = keep_maps(bucket.codebooks, program.plan, offsets, self._weights)
        new = dict(zip(lookup.missing, kept, strict=True))
        self.cache.put(new)
        clock.lap("codebook_s")
        return new

    def _draw_kept(self, program: CudaProgram, maps: Sequence[MapCodebooks], timings: Timings) -> None:
        """Draw the images of kept maps, one map for each image."""
        distinct, plan = {id(one): one for one in maps}.values(), program.plan
        rows = [sum(one.rows[level] for one in distinct) for level in range(len(plan.sizes))]
        program.needs(bucket_of(rows, plan.sizes, plan.n))
        bucket = program.bucket()
        place_maps(maps, bucket.codebooks, plan, self._weights)
        timings.distinct_share = sum(sum(one.rows) for one in maps) / sum(one.pixels for one in maps)
        bucket.convs()

    def _program(self, shape: tuple[int, ...]) -> CudaProgram:
        if shape not in self._programs:
            self._programs[shape] = CudaProgram(self._weights, shape, self._library, self._recorder)  # type: ignore[arg-type]
        self._programs.move_to_end(shape)
        if len(self._programs) > PROGRAMS:
            self._programs.popitem(last=False)
        return self._programs[shape]
