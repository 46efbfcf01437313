"""Sessions of the cpu engine: the maps between the convs are kept, and a drawing computes what its change reaches.

The kernels sum each output in one order in any rectangle, so an edited image has the bits of a new one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from kernels.isa import Isa
from kernels.program import Pool
from kernels.rectangles import EMPTY, Rectangle
from serving.engines.contract import Engine, Inputs, Pixels, Session
from serving.engines.cpu.codebooks import CodebookMaker, Planned
from serving.engines.cpu.kept_program import KeptProgram
from serving.engines.cpu.pack import PackedGenerator
from serving.engines.cpu.reach import changed_patches, changed_start, changed_symbols, reached_maps, whole_maps
from serving.engines.map_cache import keys_of
from serving.engines.timings import Timings
from spade_core.types import Style, Symbols

NOT_STORED = -(1 << 62)  # in place of a position in the patch store: below every horizon


class CpuSession(Session):
    """A session that keeps the maps between the convs while the engine has room for them.

    Args:
        engine: draws where there is no room.
        kept: the maps of all sessions.
    """

    def __init__(self, engine: Engine, kept: KeptMaps) -> None:
        super().__init__(engine)
        self._kept = kept

    def _draw(self, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle]:
        return self._kept.draw(self, inputs, timings) or super()._draw(inputs, timings)


@dataclass(eq=False)
class _Kept:
    """What is kept of one session: the program with its maps, and what they were drawn from.

    Attributes:
        symbols: uint16 [H, W]; None before the first drawing.
        oldest: for each level, the lowest position in the patch store of the map's patches.
        distinct_share: as in `Timings`, of the last map that was planned as a whole.
    """

    program: KeptProgram
    symbols: Symbols | None = None
    style: Style | None = None
    oldest: list[int] = field(default_factory=list)
    distinct_share: float = 0.0


class KeptMaps:
    """The maps of sessions, in at most `limit` bytes: those of the session used longest ago go first.

    Args:
        packed, isa: the weights, and the ISA that they are packed for.
        pool, codebooks, lock: the engine's, which drawings share with its other calls.
        limit: bytes.
    """

    def __init__(
        self, packed: PackedGenerator, isa: Isa, pool: Pool, codebooks: CodebookMaker, lock: threading.Lock, limit: int
    ) -> None:  # fmt: skip
        self._packed, self._isa, self._pool, self._codebooks = packed, isa, pool, codebooks
        self._lock, self._limit = lock, limit
        self._of: WeakKeyDictionary[CpuSession, _Kept] = WeakKeyDictionary()  # the one used last is the last

    @property
    def bytes(self) -> int:
        """Bytes of the maps of all sessions."""
        return sum(kept.program.bytes for kept in self._of.values())

    def draw(self, session: CpuSession, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle] | None:
        """What `Session.draw` returns; None where one session's maps of this size are larger than the limit."""
        with self._lock:
            kept = self._of.pop(session, None)
            if kept is None or kept.program.sizes[-1] != inputs.size:
                kept = _Kept(KeptProgram(self._packed, self._isa, *inputs.size))
                if kept.program.bytes > self._limit:
                    return None
            while self._of and self.bytes + kept.program.bytes > self._limit:
                del self._of[next(iter(self._of))]
            timings.redrawn_maps += kept.symbols is not None
            changed = self._redraw(kept, inputs, timings)
            self._of[session] = kept  # a drawing that failed leaves no maps
            timings.session_bytes = self.bytes
            return kept.program.pixels[0].copy(), changed

    def _redraw(self, kept: _Kept, inputs: Inputs, timings: Timings) -> Rectangle:
        """Draw a map into the kept maps; return the rectangle of the image that may have changed."""
        program, symbols, blocks = kept.program, inputs.symbols[0], self._packed.blocks
        restyled = not (inputs.style is None or (kept.style is not None and np.array_equal(inputs.style, kept.style)))
        if kept.symbols is None:
            reached = whole_maps(blocks, program.sizes)
            planned = self._plan(kept, inputs, timings)
        else:
            changed = changed_symbols(kept.symbols, symbols, program.sizes)
            if not restyled and not any(area.area for area in changed):
                kept.symbols = symbols
                timings.distinct_share = kept.distinct_share
                return EMPTY
            patches = changed_patches(changed, program.sizes, self._packed.config)
            start = changed_start(changed[0], restyled, program.sizes[0], self._packed.config)
            reached = reached_maps(start, patches, blocks, program.sizes)
            planned = self._codebooks.edit(program.index, kept.oldest, symbols, patches, timings) or self._plan(
                kept, inputs, timings
            )
        program.set_output("pixels")
        program.set_start(inputs.symbols, inputs.style)
        program.limit(reached)
        self._codebooks.make(planned, timings)
        timings.convs_s += program.run(self._pool)
        timings.distinct_share = kept.distinct_share
        kept.symbols, kept.style = symbols, None if inputs.style is None else inputs.style.copy()
        return reached[-1]

    def _plan(self, kept: _Kept, inputs: Inputs, timings: Timings) -> Planned:
        """Plan the whole map, and point the program at its entries."""
        planned = self._codebooks.plan(inputs.symbols, keys_of(inputs.symbols), timings)
        (of_map,) = planned.maps
        for index, planned_index in zip(kept.program.index, of_map.index, strict=True):
            index[0] = planned_index
        kept.oldest = list(of_map.oldest or [NOT_STORED] * len(of_map.index))
        kept.distinct_share = sum(of_map.rows) / of_map.pixels
        kept.program.set_entries(0, of_map.entries, of_map.entry_rows)
        return planned
