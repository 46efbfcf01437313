"""Everything after the codebooks as one native program: memory planned once per batch and size, no allocation after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kernels.layouts import BLOCK, Array, aligned_empty, blocks, storage_dtype, to_storage
from kernels.steps import Entries, Pool, Program, Step, Tier, conv, embed, image, modulate, modulated_conv, norm, run, tier_dtype
from serving.engines.cpu_codebooks import MapCodebooks
from serving.engines.cpu_pack import PackedBlock, PackedConv, PackedGenerator, PackedNorm
from spade_core.config import level_sizes
from spade_core.spade import NORM_EPS
from spade_core.style import Style

Symbols = npt.NDArray[np.uint16]
Size = tuple[int, int]

FUSED_PIXELS = 64 * 64
_PLAIN = ("x0", "x1", "dx", "shortcut")  # the buffers of plain maps: block input, block output, and what is between


class ConvProgram:
    """Start, convs and modulations of one batch size and image size.

    Attributes:
        values: float32 [N, 3, H, W] in -1..1 and pixels: uint8 [N, H, W, 3], of the last run.
    """

    def __init__(self, packed: PackedGenerator, tier: Tier, n: int, height: int, width: int) -> None:
        self._packed, self._tier, self._n = packed, tier, n
        self._sizes = level_sizes(height, width, packed.config.upsamplings)
        self._dtype = storage_dtype(tier_dtype(tier))
        self._buffers = self._allocate()
        self._index = [np.zeros((n, *size), np.int32) for size in self._sizes]
        self._entries: list[Entries] = []  # of each norm, in the order they run
        self._style = np.zeros(0, self._dtype)
        self._patches = np.zeros(0, np.int32)
        self.values = np.empty((n, 3, height, width), np.float32)
        self.pixels = np.empty((n, height, width, 3), np.uint8)
        self._steps: list[Step] = []
        x = self._start()
        for i, block in enumerate(packed.blocks):
            x = self._block(block, x, _PLAIN[(i + 1) % 2])
        self._image(x)
        self._program = Program(self._steps)

    def run(self, symbols: Symbols, style: Style | None, maps: Sequence[MapCodebooks], pool: Pool) -> float:
        """Synthesise one batch into `values` and `pixels`; returns seconds.

        symbols [N, H, W] and style [N, 256], of which the model reads one, and the codebooks of each image.
        """
        if style is not None:
            self._style[:, 1, :, 1, :] = to_storage(style, tier_dtype(self._tier)).reshape(self._n, -1, BLOCK)
        else:
            self._patches[:] = start_patches(symbols, self._packed.config.upsamplings, self._packed.config.symbols)
        self._set_codebooks(maps)
        return sum(run(self._program, pool).values())

    def _set_codebooks(self, maps: Sequence[MapCodebooks]) -> None:
        for level, index in enumerate(self._index):
            for n, one in enumerate(maps):
                index[n] = one.index[level]
        for i, entries in enumerate(self._entries):
            entries.set([one.entries[i] for one in maps])

    # ---- Memory ----

    def _allocate(self) -> dict[str, Array]:
        """One buffer per role, as large as the largest map that takes it."""
        plain = padded = 0
        for block in self._packed.blocks:
            (h, w), wide = self._sizes[block.level], max(block.conv_0.in_channels, block.conv_1.out_channels)
            plain = max(plain, h * w * blocks(wide))
            if not fuses((h, w)):
                padded = max(padded, (h + 2) * (w + 2) * blocks(wide))
        sizes = dict.fromkeys(_PLAIN, plain) | {"hidden": padded}
        return {name: aligned_empty((self._n * size * BLOCK,), self._dtype) for name, size in sizes.items()}

    def _map(self, name: str, channels: int, size: Size, border: int = 0) -> Array:
        shape = (self._n, size[0] + 2 * border, blocks(channels), size[1] + 2 * border, BLOCK)
        return self._buffers[name][: int(np.prod(shape))].reshape(shape)

    # ---- Steps ----

    def _start(self) -> Array:
        start, size = self._packed.start, self._sizes[0]
        x = self._map(_PLAIN[0], 16 * self._packed.config.nf, size)
        if start.style is not None:
            # One padded pixel per image, whose channels are the style.
            self._style = np.zeros((self._n, 3, blocks(start.style.in_channels), 3, BLOCK), self._dtype)
            self._conv(start.style, self._style, x.reshape(self._n, 1, -1, 1, BLOCK))
        elif start.table is not None:
            self._patches = np.zeros((self._n * size[0] * size[1], 9), np.int32)
            step = embed(self._tier, start.table, start.bias, self._patches, x, relu=False, zero_row=False)
            self._steps.append(step)
        return x

    def _block(self, block: PackedBlock, x: Array, out_name: str) -> Array:
        size, shift = self._sizes[block.level], block.shift
        dx = self._map("dx", block.conv_0.out_channels, size)
        self._modulated_conv(block.norm_0, block.level, x, shift, block.conv_0, dx)
        residual = x
        if block.norm_s is not None and block.conv_s is not None:
            residual = self._map("shortcut", block.conv_s.out_channels, size)
            self._modulated_conv(block.norm_s, block.level, x, shift, block.conv_s, residual, leaky=False)
            shift = 0
        out = self._map(out_name, block.conv_1.out_channels, size)
        self._modulated_conv(block.norm_1, block.level, dx, 0, block.conv_1, out, residual, shift)
        return out

    def _modulated_conv(
        self, norm_of: PackedNorm, level: int, x: Array, shift: int, conv_of: PackedConv, y: Array,
        residual: Array | None = None, residual_shift: int = 0, leaky: bool = True,
    ) -> None:  # fmt: skip
        mean = rstd = None
        if norm_of.instance:  # upsampling by repetition keeps mean and variance
            mean, rstd = np.empty((2, self._n, blocks(norm_of.channels) * BLOCK), np.float32)
            self._steps.append(norm(self._tier, x, mean, rstd, epsilon=NORM_EPS))
        none = np.zeros((blocks(norm_of.channels), 1, 2, BLOCK), self._dtype)  # until the first run sets the entries
        entries, index, size = Entries([none] * self._n), self._index[level], self._sizes[level]
        self._entries.append(entries)
        if fuses(size):
            step = modulated_conv(
                self._tier, x, entries, index, conv_of.weight, conv_of.bias, residual, y, mean=mean, rstd=rstd,
                shift=shift, leaky=leaky, in_channels=conv_of.in_channels, out_channels=conv_of.out_channels,
                kernel_size=conv_of.kernel_size, residual_shift=residual_shift,
            )  # fmt: skip
            self._steps.append(step)
            return
        hidden = self._map("hidden", norm_of.channels, size, border=1)
        self._steps.append(
            modulate(self._tier, x, entries, index, hidden, mean=mean, rstd=rstd, shift=shift, leaky=leaky)
        )
        self._conv(conv_of, hidden, y, residual, residual_shift)

    def _conv(self, of: PackedConv, x: Array, y: Array, residual: Array | None = None, shift: int = 0) -> None:
        self._steps.append(
            conv(
                self._tier, x, of.weight, of.bias, residual, y, in_channels=of.in_channels,
                out_channels=of.out_channels, kernel_size=of.kernel_size, residual_shift=shift,
            )
        )  # fmt: skip

    def _image(self, x: Array) -> None:
        last, size = self._packed.conv_img, self._sizes[-1]
        y = self._map("dx", last.out_channels, size)
        if fuses(size):
            step = modulated_conv(
                self._tier, x, None, None, last.weight, last.bias, None, y, in_channels=last.in_channels,
                out_channels=last.out_channels, kernel_size=last.kernel_size,
            )  # fmt: skip
            self._steps.append(step)
        else:
            hidden = self._map("hidden", last.in_channels, size, border=1)
            self._steps.append(modulate(self._tier, x, None, None, hidden))
            self._conv(last, hidden, y)
        self._steps.append(image(self._tier, y, self.values, self.pixels))


def fuses(size: Size) -> bool:
    """Whether a conv modulates its input itself, band by band.

    Small maps have large weights: there the map is modulated once, and each weight is read by one thread only.
    """
    return size[0] * size[1] >= FUSED_PIXELS


def start_patches(symbols: Symbols, upsamplings: int, outside: int) -> npt.NDArray[np.int32]:
    """The 3x3 patches of the map brought to the start size: symbols [N, H, W] -> [N * h0 * w0, 9]."""
    small = symbols[:, :: 2**upsamplings, :: 2**upsamplings]  # NEAREST by a whole factor
    padded = np.pad(small.astype(np.int32), ((0, 0), (1, 1), (1, 1)), constant_values=outside)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # [N, h0, w0, 3, 3]
    return windows.reshape(-1, 9)

