"""What the GPU engine keeps of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kernels.cuda.host.library import Library
from kernels.rectangles import EMPTY, Rectangle
from serving.engines.contract import Inputs, Pixels
from serving.engines.cuda.clock import Clock
from serving.engines.cuda.entry_store import EntryStore
from serving.engines.cuda.kept_map import DeviceMaps, Job
from serving.engines.cuda.program import CudaProgram
from serving.engines.cuda.recorder import Recorder, autotuned
from serving.engines.cuda.weights import CudaWeights
from serving.engines.cuda.windows import Windows, conv
from serving.engines.kept import KeptMap, Size
from serving.engines.reach import (
    changed_patches,
    changed_start,
    changed_symbols,
    conv_macs,
    reached_maps,
    whole_maps,
)
from serving.engines.timings import Timings
from spade_core.types import Symbols

STORE_BYTES = 512 << 20  # of entries by patch
MOST_PLANNED = 1 << 14  # pixels of all levels together that the host plans sooner than the device

# About a hundred launches from Python, one after the other, take as long as so many multiply-adds of a graph. An
# estimate: nobody measured it on a GPU.
LAUNCH_MACS = 60 * 10**9


class CudaSessions:
    """What the sessions of one generator share: the patch store, the windows that are exact, and counts.

    Args:
        weights, library, recorder: the generator's.
        program: the program for the label maps of one size, for one image.

    Attributes:
        launch_macs: multiply-adds that the launches of a drawing by rectangles cost; 0 on the CPU.
        parts, wholes: drawings by rectangles, and of whole maps.
    """

    def __init__(
        self, weights: CudaWeights, library: Library, recorder: Recorder, program: Callable[[Size], CudaProgram]
    ) -> None:  # fmt: skip
        self.weights, self.library, self.recorder, self.program = weights, library, recorder, program
        self.store = EntryStore(weights, library, STORE_BYTES)
        self.windows = Windows(run_conv, weights.dtype, weights.device)
        self.launch_macs = LAUNCH_MACS if weights.device.type == "cuda" else 0
        self.parts = self.wholes = 0

    def make(self, size: Size) -> CudaMap:
        """Memory for the maps of one size."""
        return CudaMap(self, size)


def run_conv(weight: Tensor, x: Tensor, whole: bool) -> Tensor:
    """A conv. On a whole map it runs as the recorded graphs run it, with the algorithm that cuDNN measured as fastest.

    Windows come in many sizes and take the algorithm that cuDNN guesses, because measuring takes long.
    """
    if not whole:
        return conv(weight, x)
    with autotuned():
        return conv(weight, x)


class CudaMap(KeptMap):
    """The kept maps of one session, and what they were drawn from."""

    def __init__(self, sessions: CudaSessions, size: Size) -> None:
        super().__init__(size)
        self._of = sessions
        self._maps = DeviceMaps(sessions.weights, sessions.library, sessions.store.tables, sessions.windows, size)

    @property
    def bytes(self) -> int:
        """Bytes of maps, index and image, on the device."""
        return self._maps.bytes

    def redraw(self, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle] | None:
        """Draw one map into the kept maps; see `KeptMap.redraw`. Waits for the device."""
        return self._of.recorder.run(lambda: self._redraw(inputs, timings))

    @torch.inference_mode()
    def _redraw(self, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle] | None:
        clock = Clock(self._of.weights.device, measures=True)
        clock.lap("begun")
        reached = self._draw(inputs, clock)
        if reached is None:
            return None
        self.remember(inputs)
        pixels = self._maps.pixels[0]
        image: Pixels = (pixels.cpu() if pixels.is_cuda else pixels.clone()).numpy()
        clock.add_to(timings)
        timings.distinct_share = self.distinct_share
        return image, reached

    def _draw(self, inputs: Inputs, clock: Clock) -> Rectangle | None:
        """Draw the map; return the rectangle that may have changed, or None where the store has no room."""
        symbols, config, sizes = inputs.symbols[0], self._of.weights.config, self._maps.sizes
        blocks, whole = self._of.weights.blocks, whole_maps(self._of.weights.blocks, self._maps.sizes)
        if self.symbols is None:
            return self._draw_whole(inputs, clock) if self._plan_whole(inputs, clock) else None
        restyled = self.restyles(inputs)
        changed = changed_symbols(self.symbols, symbols, sizes)
        if not restyled and not any(area.area for area in changed):
            return EMPTY
        patches = changed_patches(changed, sizes, config)
        if not self._plan_part(symbols, patches, clock) and not self._plan_whole(inputs, clock):
            return None
        reached = reached_maps(changed_start(changed[0], restyled, sizes[0], config), patches, blocks, sizes)
        most = conv_macs(whole, config) - self._of.launch_macs
        if config.norm == "instance" or conv_macs(reached, config) >= most:
            return self._draw_whole(inputs, clock)
        jobs = self._maps.jobs(reached)
        if sum(job.shape.macs(job.window) for job in jobs) >= most:  # windows are larger than what is reached
            return self._draw_whole(inputs, clock)
        return self._draw_part(inputs, reached, jobs, clock)

    # ---- Plan and entries ----

    def _plan_part(self, symbols: Symbols, patches: Sequence[Rectangle], clock: Clock) -> bool:
        """Plan areas on the host, and compute their new entries. False where the whole map has to be planned."""
        if sum(area.area for area in patches) > MOST_PLANNED:
            return False
        if not self._of.store.place_part(symbols, patches, self._maps.index, self.oldest):
            return False
        self._compute_entries(clock)
        return True

    def _plan_whole(self, inputs: Inputs, clock: Clock) -> bool:
        """Plan the map on the device, and compute its new entries. False where the store cannot hold them."""
        program = self._of.program(self.size)
        program.load(inputs.symbols, inputs.style)
        program.find()
        rows = self._of.store.place_whole(program.plan, self.oldest)
        if rows is None:
            return False
        for level, index in enumerate(self._maps.index):
            index.copy_(program.plan.level_index(level))
        self.distinct_share = sum(rows) / program.plan.index.numel()
        self._compute_entries(clock)
        return True

    def _compute_entries(self, clock: Clock) -> None:
        clock.lap("plan_s")
        self._of.store.compute()
        clock.lap("codebook_s")

    # ---- Convs ----

    def _draw_whole(self, inputs: Inputs, clock: Clock) -> Rectangle:
        program = self._of.program(self.size)
        program.load(inputs.symbols, inputs.style)
        self._maps.draw_whole(program)
        clock.lap("convs_s")
        self._of.wholes += 1
        return Rectangle.whole(*self.size)

    def _draw_part(self, inputs: Inputs, reached: Sequence[Rectangle], jobs: Sequence[Job], clock: Clock) -> Rectangle:
        program = self._of.program(self.size)
        if reached[0].area:  # the start map is made of the symbols
            program.load(inputs.symbols, inputs.style)
        self._maps.draw_part(program, reached, jobs)
        clock.lap("convs_s")
        self._of.parts += 1
        return reached[-1]
