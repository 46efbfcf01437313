"""The cpu engine: the codebook form on native kernels, float32, bf16 or int8."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, IsaError, choose_isa
from kernels.layouts import DType
from kernels.program import Pool
from serving.engines.cpu.codebooks import CodebookCache, CodebookMaker, CodebookTimes
from serving.engines.cpu.pack import pack_generator
from serving.engines.cpu.program import ConvProgram, Output
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import prepare
from spade_core.models.generator import Generator
from spade_core.models.style import check_style
from spade_core.types import Images, Instances, Labels, Style

CACHE_BYTES = 512 << 20
PROGRAMS = 8  # (batch, size) pairs whose memory is kept; the least recently used goes

_DTYPES: dict[str, DType] = {"fp32": "float32", "bf16": "bf16", "int8": "bf16"}


def choose_isa_of(precision: str) -> Isa:
    """The fastest isa of a precision on this processor. Raises IsaError without one, ValueError for others' names."""
    if precision not in _DTYPES:
        raise ValueError(f"[engine] expected precision {', '.join(_DTYPES)} but got {precision!r}")
    isa = choose_isa(_DTYPES[precision])
    if precision == "int8" and isa != "amx":
        raise IsaError(
            f"[cpu] expected a processor with AMX, and SPADE_CPU_ISA unset or amx, for precision int8 but got isa "
            f"{isa}; use bf16"
        )
    return isa


class CpuEngine:
    """Runs a generator on the native kernels. Calls from several threads take turns; engines run side by side.

    Args:
        generator: float32, in eval mode; it is only read.
        precision: fp32 or bf16, of weights and activations; sums are float32. int8: as bf16, but the codebooks that
            take most of the time multiply in int8, on a processor with AMX. Raises IsaError without a isa for it.
        threads: of this engine's own pool; None: one per core.
        cache_bytes: of plans and codebooks kept for label maps that come again; 0 keeps none.
    """

    name = "cpu"
    max_concurrent_calls = 1  # its threads are all at work on one

    def __init__(
        self,
        generator: Generator,
        precision: str = "fp32",
        threads: int | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.isa: Isa = choose_isa_of(precision)
        self.config: GeneratorConfig = generator.config
        self.precision = precision
        threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self._pool = Pool(threads)
        self._packed = pack_generator(generator, self.isa, threads, int8=precision == "int8")
        self._codebooks = CodebookMaker(self._packed, self.isa, self._pool, CodebookCache(cache_bytes))
        self._programs: dict[tuple[int, ...], ConvProgram] = {}
        self._lock = threading.Lock()

    def synthesize(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Images:
        """Label maps [N, H, W] -> images [N, H, W, 3]; see `Engine`. Equal maps share codebooks."""
        return self._run(labels, instances, style, timings, "pixels")

    def image(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> npt.NDArray[np.float32]:
        """As `synthesize`, before rounding: float32 [N, 3, H, W] in -1..1."""
        return self._run(labels, instances, style, timings, "values")

    def _run(
        self,
        labels: Labels,
        instances: Instances | None,
        style: Style | None,
        timings: Timings | None,
        output: Output,
    ) -> npt.NDArray[Any]:
        symbols = prepare(labels, instances, self.config)  # [N, H, W]
        styles = check_style(style, len(symbols), self.config)
        times = CodebookTimes()
        with self._lock:
            planned = self._codebooks.plan(symbols, times)
            program = self._program(symbols.shape)
            program.set(symbols, styles, planned.maps, output)
            self._codebooks.make(planned, times)  # and the threads go on to the convs while they are awake
            convs_s = program.run(self._pool)
            out = (program.values if output == "values" else program.pixels).copy()  # the next call writes there again
        if timings is not None:
            timings.plan_s += times.plan_s
            timings.codebook_s += times.codebook_s
            timings.convs_s += convs_s
            maps = planned.maps
            timings.distinct_share = sum(sum(one.rows) for one in maps) / sum(one.pixels for one in maps)
            timings.cached_maps += times.cached
        return out

    def _program(self, shape: tuple[int, ...]) -> ConvProgram:
        program = self._programs.pop(shape, None)
        if program is None:
            program = ConvProgram(self._packed, self.isa, *shape)
        self._programs[shape] = program  # dictionaries keep the order: the last is the most recently used
        if len(self._programs) > PROGRAMS:
            del self._programs[next(iter(self._programs))]
        return program
