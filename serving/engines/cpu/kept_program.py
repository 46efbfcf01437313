"""The program of one image whose maps outlive a run, so that a later run computes only what changed."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.isa import Isa
from kernels.layouts import Array, aligned_empty
from kernels.program import RECTANGLES
from kernels.rectangles import Rectangle
from serving.engines.cpu.pack import PackedGenerator
from serving.engines.cpu.program import ConvProgram, Size, is_large

PASSING = ("hidden", "shortcut")  # maps that are made for the next step alone


class KeptProgram(ConvProgram):
    """A `ConvProgram` of one image. Every map between the convs has memory of its own.

    Args:
        packed, isa, height, width: as in `ConvProgram`.
    """

    def __init__(self, packed: PackedGenerator, isa: Isa, height: int, width: int) -> None:
        self._own: list[Array] = []
        super().__init__(packed, isa, 1, height, width)
        self._buffers = {key: memory for key, memory in self._buffers.items() if key[0] in PASSING}
        self._limits: list[tuple[int, int, Size, list[int]]] = []  # rectangle, border, size, positions of the edges
        self._start_words: list[int] = []
        for i, (kind, which) in enumerate(zip(self._program.kinds, self._made_by, strict=True)):
            args = self._program.args(i)
            if kind == "embed":  # of the start map's pixels, row by row
                self._start_words = self._program.words(i, "rows", "patches", "out")
                self._start_addresses = [int(args[name][0]) for name in ("patches", "out")]
            elif kind in RECTANGLES:
                prefix = "conv_" if kind == "modulated_conv" else ""
                size = (int(args[f"{prefix}height"][0]), int(args[f"{prefix}width"][0]))
                border = 1 if kind == "modulate" else 0  # a modulate step makes what the next conv reads
                self._limits.append((which, border, size, self._program.words(i, *RECTANGLES[kind])))

    @property
    def bytes(self) -> int:
        """Bytes of maps, index and images."""
        start = [self._start_map] if is_large(self.sizes[0]) else []  # else it is one of the own maps
        arrays = [*start, *self._buffers.values(), *self._own, *self.index, self.pixels]
        return sum(array.nbytes for array in arrays)

    def limit(self, reached: Sequence[Rectangle]) -> None:
        """Let the next run compute rectangles only, as `reach.reached_maps` gives them."""
        for which, border, size, words in self._limits:
            rectangle = reached[which].grown(border, *size)
            for word, edge in zip(words, (*rectangle, *rectangle), strict=False):
                self._words[word] = edge
        if self._start_words:
            self._limit_start(reached[0])

    def _limit_start(self, area: Rectangle) -> None:
        """Let the start map's step compute the lines of an area."""
        line = self._patches.nbytes // self.sizes[0][0], self._start_map.nbytes // self.sizes[0][0]
        rows, *addresses = self._start_words
        self._words[rows] = area.height * self.sizes[0][1]
        for word, first, of_line in zip(addresses, self._start_addresses, line, strict=True):
            self._words[word] = first + area.top * of_line

    def _map(self, name: str, images: slice, channels: int, size: Size, border: int = 0) -> Array:
        if name in PASSING:
            return super()._map(name, images, channels, size, border)
        memory = aligned_empty(self._map_shape(images, channels, size), self._dtype)
        self._own.append(memory)
        return memory
