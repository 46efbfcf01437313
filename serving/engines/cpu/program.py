"""Everything after the codebooks as one native program: memory is planned once per batch and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from kernels.constants import EPSILON
from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import BLOCK, Array, aligned_empty, blocks, storage_dtype, to_storage
from kernels.ops.conv import PackedConv, conv
from kernels.ops.embed import embed
from kernels.ops.image import image
from kernels.ops.modulate import Modulation, modulate
from kernels.ops.modulated_conv import Shortcut, modulated_conv
from kernels.ops.norm import norm
from kernels.program import Entries, Pool, Program, Step
from serving.engines.cpu.codebooks import MapCodebooks
from serving.engines.cpu.pack import PackedBlock, PackedGenerator, PackedNorm
from spade_core.config import level_sizes
from spade_core.types import Style, Symbols

Size = tuple[int, int]
Output = Literal["values", "pixels"]

LARGE = 64 * 64  # pixels of the smallest large map
_PLAIN = ("x0", "x1", "dx")  # the buffers of plain maps: a block's input, its output, and the map between its convs


class ConvProgram:
    """Start, convs and modulations of one batch size and image size.

    The small maps of all images go through a step together, so that the step's large weights are read once for all.
    Large maps go through their steps one image at a time, in memory that fits the cache. The convs of large maps
    modulate their own input, band by band.

    Attributes:
        sizes: (height, width) of each level.
        index: int32 [N, h, w] for each level, rows of the entries.
        values: float32 [N, 3, H, W] in -1..1, the output of the last run that asked for values.
        pixels: uint8 [N, H, W, 3], the output of the last run that asked for pixels.
    """

    def __init__(self, packed: PackedGenerator, isa: Isa, n: int, height: int, width: int) -> None:
        self._packed, self._isa, self._n = packed, isa, n
        self.sizes = level_sizes(height, width, packed.config.upsamplings)
        self._dtype, self._input_dtype = storage_dtype(isa_dtype(isa)), storage_dtype(input_dtype(isa))
        self._buffers = self._allocate()
        self.index = [np.zeros((n, *size), np.int32) for size in self.sizes]
        norms = sum(len(block.norms) for block in packed.blocks)
        self._entries = np.zeros((norms, n), np.uint64)  # addresses by norm and image
        self._entry_rows = np.zeros((norms, n), np.int64)
        self._style = np.zeros(0, self._input_dtype)
        self._patches = np.zeros(0, np.int32)
        self.values = np.empty((n, 3, height, width), np.float32)
        self.pixels = np.empty((n, height, width, 3), np.uint8)
        self._steps: list[Step] = []
        # The map that is being made: 0 the start map, then the two maps of each block, last the image; by step.
        self._making, self._made_by = 0, list[int]()
        x, small = self._start(), sum(not is_large(self.sizes[block.level]) for block in packed.blocks)
        x = self._blocks(0, small, x, slice(0, n))
        alone = [slice(i, i + 1) for i in range(n)]
        for images in alone if is_large(self.sizes[-1]) else [slice(0, n)]:
            self._image(self._blocks(small, len(packed.blocks), x[images], images), images)
        self._program = Program(self._steps)
        self._words = self._program.memory.data.cast("q")
        # For each image's last step: the positions of its two output arguments, and the addresses of the outputs.
        self._outputs = [
            [(word, self._words[word]) for word in self._program.words(i, "values", "pixels")]
            for i, kind in enumerate(self._program.kinds)
            if kind == "image"
        ]

    def set(self, symbols: Symbols, style: Style | None, maps: Sequence[MapCodebooks], output: Output) -> None:
        """Prepare the next run.

        Args:
            symbols: uint16 [N, H, W], for the start map of a model without style.
            style: float32 [N, 256], for the start map of a model with style.
            maps: the codebooks of each image. Their entries may be computed after this call.
            output: which of `values` and `pixels` the run writes.
        """
        self.set_output(output)
        self.set_start(symbols, style)
        for level, index in enumerate(self.index):
            for n, one in enumerate(maps):
                index[n] = one.index[level]
        for n, one in enumerate(maps):
            self.set_entries(n, one.entries, one.entry_rows)

    def set_output(self, output: Output) -> None:
        """Choose which of `values` and `pixels` the next runs write."""
        for of_image in self._outputs:
            for name, (word, address) in zip(get_args(Output), of_image, strict=True):
                self._words[word] = address if name == output else 0

    def set_start(self, symbols: Symbols, style: Style | None) -> None:
        """Set what the start map is made of; see `set`."""
        if style is not None:
            self._style[:, 1, :, 1, :] = to_storage(style, input_dtype(self._isa)).reshape(self._n, -1, BLOCK)
        else:
            self._patches[:] = start_patches(symbols, self._packed.config.upsamplings, self._packed.config.symbols)

    def set_entries(self, n: int, addresses: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]) -> None:
        """Set where the entries of image n lie: the address and the rows of each norm's table."""
        self._entries[:, n], self._entry_rows[:, n] = addresses, rows

    def run(self, pool: Pool) -> float:
        """Synthesise the batch that `set` prepared. Returns the seconds."""
        return sum(pool.run(self._program).values())

    # ---- Memory ----

    def _allocate(self) -> dict[tuple[str, bool], Array]:
        """One buffer for each role of a map, small or large, of the size of the largest map in the role."""
        elements = {(name, large): 0 for name in _PLAIN for large in (False, True)}
        elements |= {("shortcut", False): 0, ("hidden", False): 0}  # for large maps the kernel's scratch holds both
        widths = [(b.level, max(b.conv_0.in_channels, b.conv_1.out_channels)) for b in self._packed.blocks]
        for level, channels in [*widths, (len(self.sizes) - 1, self._packed.conv_img.in_channels)]:
            (h, w), large = self.sizes[level], is_large(self.sizes[level])
            images = 1 if large else self._n
            for name in _PLAIN if large else (*_PLAIN, "shortcut"):
                elements[name, large] = max(elements[name, large], images * h * w * blocks(channels) * BLOCK)
            if not large:
                padded = images * (h + 2) * (w + 2) * blocks(channels) * BLOCK
                elements["hidden", False] = max(elements["hidden", False], padded)
        return {
            (name, large): aligned_empty((count,), self._input_dtype if name == "hidden" else self._dtype)
            for (name, large), count in elements.items()
        }

    def _map(self, name: str, images: slice, channels: int, size: Size, border: int = 0) -> Array:
        shape = self._map_shape(images, channels, size, border)
        return self._buffers[name, is_large(size)][: math.prod(shape)].reshape(shape)

    @staticmethod
    def _map_shape(images: slice, channels: int, size: Size, border: int = 0) -> tuple[int, ...]:
        return (images.stop - images.start, size[0] + 2 * border, blocks(channels), size[1] + 2 * border, BLOCK)

    # ---- Steps ----

    def _start(self) -> Array:
        start, size = self._packed.start, self.sizes[0]
        channels = 16 * self._packed.config.nf
        if is_large(size):  # the start maps of all images exist at once, and a large buffer holds only one
            x = aligned_empty((self._n, size[0], blocks(channels), size[1], BLOCK), self._dtype)
        else:
            x = self._map(_PLAIN[0], slice(0, self._n), channels, size)
        if start.style is not None:
            # The style as the channels of one pixel per image, with its padding.
            self._style = np.zeros((self._n, 3, blocks(start.style.in_channels), 3, BLOCK), self._input_dtype)
            y = x.reshape(self._n, 1, -1, 1, BLOCK)
            self._add(conv(self._isa, self._style, start.style, y))
        elif start.table is not None:
            self._patches = np.zeros((self._n * size[0] * size[1], 9), np.int32)
            step = embed(self._isa, start.table, start.bias, self._patches, x, relu=False, zero_row=False)
            self._add(step)
        self._start_map = x
        return x

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._made_by.append(self._making)

    def _blocks(self, first: int, end: int, x: Array, images: slice) -> Array:
        number = sum(len(block.norms) for block in self._packed.blocks[:first])  # number of the first norm
        for i, block in enumerate(self._packed.blocks[first:end], first):
            x = self._block(block, number, x, _PLAIN[(i + 1) % 2], images)
            number += len(block.norms)
        return x

    def _block(self, block: PackedBlock, number: int, x: Array, out_name: str, images: slice) -> Array:
        size, level, shift = self.sizes[block.level], block.level, block.shift
        dx = self._map("dx", images, block.conv_0.out_channels, size)
        out = self._map(out_name, images, block.conv_1.out_channels, size)
        self._making += 1
        first = self._modulation(block.norm_0, number, level, x, images, shift)
        self._modulated_conv(x, first, block.conv_0, dx)
        self._making += 1
        if block.norm_s is None or block.conv_s is None:
            last = self._modulation(block.norm_1, number + 1, level, dx, images)
            self._modulated_conv(dx, last, block.conv_1, out, x, residual_shift=shift)
            return out
        beside = replace(self._modulation(block.norm_s, number + 1, level, x, images, shift), leaky=False)
        if is_large(size):
            last = self._modulation(block.norm_1, number + 2, level, dx, images)
            shortcut = Shortcut(x, beside, block.conv_s)
            self._modulated_conv(dx, last, block.conv_1, out, shortcut=shortcut)
        else:
            residual = self._map("shortcut", images, block.conv_s.out_channels, size)
            self._modulated_conv(x, beside, block.conv_s, residual)
            last = self._modulation(block.norm_1, number + 2, level, dx, images)
            self._modulated_conv(dx, last, block.conv_1, out, residual)
        return out

    def _modulation(
        self, packed: PackedNorm, number: int, level: int, x: Array, images: slice, shift: int = 0
    ) -> Modulation:
        mean = rstd = None
        if packed.instance:  # of x before the upsampling, which keeps mean and variance
            mean, rstd = np.empty((2, len(x), blocks(packed.channels) * BLOCK), np.float32)
            self._add(norm(self._isa, x, mean, rstd, epsilon=EPSILON))
        entries = Entries(
            self._entries[number, images], self._entry_rows[number, images], blocks(packed.channels), self._dtype
        )
        return Modulation(entries, self.index[level][images], mean, rstd, shift)

    def _modulated_conv(
        self, x: Array, modulation: Modulation, packed: PackedConv, y: Array, residual: Array | None = None, *,
        residual_shift: int = 0, shortcut: Shortcut | None = None,
    ) -> None:  # fmt: skip
        n, height, _, width, _ = y.shape
        if is_large((height, width)):
            step = modulated_conv(
                self._isa, x, modulation, packed, y, residual, residual_shift=residual_shift, shortcut=shortcut
            )
            self._add(step)
            return
        hidden = self._map("hidden", slice(0, n), packed.in_channels, (height, width), border=1)
        self._add(modulate(self._isa, x, modulation, hidden))
        self._add(conv(self._isa, hidden, packed, y, residual, residual_shift=residual_shift))

    def _image(self, x: Array, images: slice) -> None:
        y = self._map("dx", images, self._packed.conv_img.out_channels, self.sizes[-1])
        self._making += 1
        self._modulated_conv(x, Modulation(), self._packed.conv_img, y)
        self._add(image(self._isa, y, self.values[images], self.pixels[images]))


def is_large(size: Size) -> bool:
    """Whether a map goes through the convs image by image. The convs of small maps have more weights than pixels."""
    return size[0] * size[1] >= LARGE


def start_patches(symbols: Symbols, upsamplings: int, outside: int) -> npt.NDArray[np.int32]:
    """The 3x3 patches of the map at the start size: symbols [N, H, W] -> [N * h0 * w0, 9]."""
    small = symbols[:, :: 2**upsamplings, :: 2**upsamplings]  # NEAREST, by an integer factor
    n, h, w = small.shape
    padded = np.full((n, h + 2, w + 2), outside, np.int32)
    padded[:, 1:-1, 1:-1] = small
    patches = np.empty((n, h, w, 9), np.int32)
    for tap in range(9):
        ky, kx = divmod(tap, 3)
        patches[..., tap] = padded[:, ky : ky + h, kx : kx + w]
    return patches.reshape(-1, 9)
