"""What the cpu engine keeps of a session.

The kernels sum each output in one order in any rectangle, so an edited image has the bits of a new one.
"""

from __future__ import annotations

from kernels.isa import Isa
from kernels.program import Pool
from kernels.rectangles import EMPTY, Rectangle
from serving.engines.contract import Inputs, Pixels
from serving.engines.cpu.codebooks import CodebookMaker, Planned
from serving.engines.cpu.kept_program import KeptProgram
from serving.engines.cpu.pack import PackedGenerator
from serving.engines.kept import NOT_STORED, KeptMap, Size
from serving.engines.map_cache import keys_of
from serving.engines.reach import changed_patches, changed_start, changed_symbols, reached_maps, whole_maps
from serving.engines.timings import Timings


class CpuMap(KeptMap):
    """The program of one session with its maps, and what they were drawn from.

    Args:
        packed, isa: the weights, and the ISA that they are packed for.
        pool, codebooks: the engine's.
        size: of the label map.
    """

    def __init__(self, packed: PackedGenerator, isa: Isa, pool: Pool, codebooks: CodebookMaker, size: Size) -> None:
        super().__init__(size)
        self._packed, self._pool, self._codebooks = packed, pool, codebooks
        self._program = KeptProgram(packed, isa, *size)

    @property
    def bytes(self) -> int:
        """Bytes of maps, index and images."""
        return self._program.bytes

    def redraw(self, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle]:
        """Draw a map into the kept maps; return its image, and the rectangle that may have changed."""
        changed = self._redraw(inputs, timings)
        timings.distinct_share = self.distinct_share
        return self._program.pixels[0].copy(), changed

    def _redraw(self, inputs: Inputs, timings: Timings) -> Rectangle:
        program, symbols, blocks = self._program, inputs.symbols[0], self._packed.blocks
        restyled = self.restyles(inputs)
        if self.symbols is None:
            reached = whole_maps(blocks, program.sizes)
            planned = self._plan(inputs, timings)
        else:
            changed = changed_symbols(self.symbols, symbols, program.sizes)
            if not restyled and not any(area.area for area in changed):
                self.symbols = symbols
                return EMPTY
            patches = changed_patches(changed, program.sizes, self._packed.config)
            start = changed_start(changed[0], restyled, program.sizes[0], self._packed.config)
            reached = reached_maps(start, patches, blocks, program.sizes)
            planned = self._codebooks.edit(program.index, self.oldest, symbols, patches, timings) or self._plan(
                inputs, timings
            )
        program.set_output("pixels")
        program.set_start(inputs.symbols, inputs.style)
        program.limit(reached)
        self._codebooks.make(planned, timings)
        timings.convs_s += program.run(self._pool)
        self.remember(inputs)
        return reached[-1]

    def _plan(self, inputs: Inputs, timings: Timings) -> Planned:
        """Plan the whole map, and point the program at its entries."""
        planned = self._codebooks.plan(inputs.symbols, keys_of(inputs.symbols), timings)
        (of_map,) = planned.maps
        for index, planned_index in zip(self._program.index, of_map.index, strict=True):
            index[0] = planned_index
        self.oldest = list(of_map.oldest or [NOT_STORED] * len(of_map.index))
        self.distinct_share = sum(of_map.rows) / of_map.pixels
        self._program.set_entries(0, of_map.entries, of_map.entry_rows)
        return planned
