"""The cpu engine: the codebook form on native kernels, float32, bf16 or int8."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kernels.isa import Isa, IsaError, choose_isa
from kernels.layouts import DType
from kernels.program import Pool
from serving.engines.contract import Engine, Inputs, Session, check_inputs
from serving.engines.cpu.codebooks import CodebookMaker
from serving.engines.cpu.pack import pack_generator
from serving.engines.cpu.program import ConvProgram, Output
from serving.engines.cpu.session import CpuMap
from serving.engines.kept import SESSION_BYTES, KeptMaps, KeptSession
from serving.engines.map_cache import keys_of
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.files.weights import Weights
from spade_core.types import Images, Instances, Labels, Style

if TYPE_CHECKING:
    from spade_core.models.generator import Generator

CACHE_BYTES = 512 << 20
PROGRAMS = 8  # (batch, size) pairs whose memory is kept; the one used longest ago goes

_DTYPES: dict[str, DType] = {"fp32": "float32", "bf16": "bf16", "int8": "bf16"}


def choose_isa_of(precision: str) -> Isa:
    """The fastest ISA for a precision on this processor.

    Raises IsaError where the processor has none, ValueError for a precision that the cpu engine does not know.
    """
    if precision not in _DTYPES:
        raise ValueError(f"[engine] expected precision {', '.join(_DTYPES)} but got {precision!r}")
    isa = choose_isa(_DTYPES[precision])
    if precision == "int8" and isa != "amx":
        raise IsaError(
            f"[cpu] expected a processor with AMX, and SPADE_CPU_ISA unset or amx, for precision int8 but got isa "
            f"{isa}; use bf16"
        )
    return isa


class CpuEngine(Engine):
    """Runs a generator on the native kernels. Calls from several threads take turns; engines run side by side.

    Args:
        generator: the weights of a generator, or a float32 generator in eval mode. The engine only reads them.
        precision: dtype of weights and activations, fp32 or bf16; sums are float32. int8 is bf16 with the slowest
            codebooks multiplied in int8, on a processor with AMX. Raises IsaError where no ISA has the precision.
        threads: threads of this engine's own pool; None takes one per core.
        cache_bytes: memory for codebook entries by patch, and plans by label map; 0 keeps none.
        session_bytes: memory for the maps between the convs of sessions; the session used longest ago goes first, and
            draws its next map anew. 0 keeps none.
    """

    name = "cpu"

    def __init__(
        self,
        generator: Weights | Generator,
        precision: str = "fp32",
        threads: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        session_bytes: int = SESSION_BYTES,
    ) -> None:
        self.isa: Isa = choose_isa_of(precision)
        weights = generator if isinstance(generator, Weights) else _weights_of(generator)
        self.config: GeneratorConfig = weights.config
        self.precision = precision
        threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self._pool = Pool(threads)
        self._packed = pack_generator(weights, self.isa, threads, int8=precision == "int8")
        self._codebooks = CodebookMaker(self._packed, self.isa, self._pool, cache_bytes)
        self._programs: dict[tuple[int, ...], ConvProgram] = {}
        self._lock = threading.Lock()
        make = functools.partial(CpuMap, self._packed, self.isa, self._pool, self._codebooks)
        self._kept = KeptMaps(make, self._lock, session_bytes)

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        """Checked inputs -> images [N, H, W, 3]; see `Engine.run`. Equal maps share codebooks."""
        return self._run(inputs, timings or Timings(), "pixels")

    def image(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> npt.NDArray[np.float32]:
        """The values that `synthesize` rounds to pixels: float32 [N, 3, H, W] in -1..1."""
        return self._run(check_inputs(labels, instances, style, self.config), timings or Timings(), "values")

    def session(self) -> Session:
        """A session that redraws what changed. With instance norm every change reaches every pixel: a plain session."""
        if self.config.norm == "instance":
            return Session(self)
        return KeptSession(self, self._kept)

    def _run(self, inputs: Inputs, timings: Timings, output: Output) -> npt.NDArray[Any]:
        keys = keys_of(inputs.symbols)
        with self._lock:
            planned = self._codebooks.plan(inputs.symbols, keys, timings)
            program = self._program(inputs.symbols.shape)
            program.set(inputs.symbols, inputs.style, planned.maps, output)
            # The convs follow the codebooks at once, while the pool's threads are still awake.
            self._codebooks.make(planned, timings)
            timings.convs_s += program.run(self._pool)
            out = program.values if output == "values" else program.pixels
            out = out.copy()  # the next call overwrites the program's memory
        maps = planned.maps
        timings.distinct_share = sum(sum(one.rows) for one in maps) / sum(one.pixels for one in maps)
        return out

    def _program(self, shape: tuple[int, ...]) -> ConvProgram:
        program = self._programs.pop(shape, None)
        if program is None:
            program = ConvProgram(self._packed, self.isa, *shape)
        self._programs[shape] = program  # a dictionary keeps its order: the last program is the one used last
        if len(self._programs) > PROGRAMS:
            del self._programs[next(iter(self._programs))]
        return program


def _weights_of(generator: Generator) -> Weights:
    from spade_core.files.checkpoints import arrays_of  # needs PyTorch, as the generator does

    return Weights(generator.config, arrays_of(generator), None, {})
