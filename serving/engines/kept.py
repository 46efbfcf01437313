"""Sessions of engines that keep the maps between the convs, so that a drawing computes what its change reaches."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from kernels.rectangles import Rectangle
from serving.engines.contract import Engine, Inputs, Pixels, Session
from serving.engines.timings import Timings
from spade_core.types import Style, Symbols

Size = tuple[int, int]
Guard = Callable[[], contextlib.AbstractContextManager[None]]
SESSION_BYTES = 1 << 30  # of the maps of all sessions
NOT_STORED = -(1 << 62)  # in place of a position in the patch store: below every horizon


class KeptMap(ABC):
    """What an engine keeps of one session: the maps between the convs of the last drawing.

    Attributes:
        size: height and width of the label map.
        symbols, style: what was drawn last, uint16 [H, W] and float32 [1, 256]; None before, and without a style.
        oldest: for each level, the lowest position in the patch store of the map's patches.
        distinct_share: of the last map that was planned as a whole.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        self.symbols: Symbols | None = None
        self.style: Style | None = None
        self.oldest: list[int] = []
        self.distinct_share = 0.0

    def restyles(self, inputs: Inputs) -> bool:
        """Whether the inputs have a style that was not drawn last."""
        return not (inputs.style is None or (self.style is not None and np.array_equal(inputs.style, self.style)))

    def remember(self, inputs: Inputs) -> None:
        """Take the inputs as what was drawn last."""
        self.symbols, self.style = inputs.symbols[0], None if inputs.style is None else inputs.style.copy()

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes of maps, index and images."""

    @abstractmethod
    def redraw(self, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle] | None:
        """Draw one map into the kept maps; return what `Session.draw` does. None, with nothing drawn: no room."""


class KeptSession(Session):
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


class KeptMaps:
    """The maps of sessions, in at most `limit` bytes: those of the session used longest ago go first.

    Args:
        make: memory for the maps of one size.
        lock: the engine's, which drawings share with its other calls.
        limit: bytes.
        guard: a context that every drawing runs in.
    """

    def __init__(
        self, make: Callable[[Size], KeptMap], lock: threading.Lock, limit: int, guard: Guard = contextlib.nullcontext
    ) -> None:
        self._make, self._lock, self._limit, self._guard = make, lock, limit, guard
        self._of: WeakKeyDictionary[KeptSession, KeptMap] = WeakKeyDictionary()  # the one used last is the last
        self._too_large: set[Size] = set()

    @property
    def bytes(self) -> int:
        """Bytes of the maps of all sessions."""
        return sum(kept.bytes for kept in self._of.values())

    def draw(self, session: KeptSession, inputs: Inputs, timings: Timings) -> tuple[Pixels, Rectangle] | None:
        """What `Session.draw` returns; None where one session's maps of this size are larger than the limit."""
        with self._lock, self._guard():
            kept = self._of.pop(session, None)
            if inputs.size in self._too_large:
                return None
            if kept is None or kept.size != inputs.size:
                kept = self._make(inputs.size)
                if kept.bytes > self._limit:
                    self._too_large.add(inputs.size)
                    return None
            while self._of and self.bytes + kept.bytes > self._limit:
                del self._of[next(iter(self._of))]
            redrawn = kept.symbols is not None
            drawing = kept.redraw(inputs, timings)  # a drawing that failed leaves no maps
            if drawing is None:
                return None
            timings.redrawn_maps += redrawn
            self._of[session] = kept
            timings.session_bytes = self.bytes
            return drawing
