"""What the engine keeps of a session on the device, and the drawing of what an edit reaches.

A whole drawing is the graph of `CudaProgram.kept_step`, whose steps are those of every other drawing. An edit runs the
same kernels on rectangles, one launch after the other. Our kernels compute each pixel in one order wherever it lies;
convs are a library's, so `Windows` says which rectangles of a conv have the bits of the whole map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cuda.host.library import Library
from kernels.cuda.image.image import image_conv
from kernels.cuda.modulate.modulate_codebook import Modulation, modulate_codebook
from kernels.rectangles import Rectangle
from serving.engines.cuda.program import CudaProgram, kept_shapes
from serving.engines.cuda.weights import CudaBlock, CudaNorm, CudaWeights
from serving.engines.cuda.windows import ConvShape, Windows, channels_last, moved, part, window_around
from spade_core.config import level_sizes

Size = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """One conv of an edit: what it makes of `area` goes to a kept map; it runs on `window`."""

    shape: ConvShape
    area: Rectangle
    window: Rectangle


class DeviceMaps:
    """The maps between the convs of one session, at one size, and the steps that draw into them.

    Args:
        weights, library: the generator, and the kernels.
        tables: T [rows, 2C] of each norm, whose rows `index` names.
        windows: knows which rectangles of a conv are exact.
        size: of the label map.

    Attributes:
        index: int32 [1, h, w] of each level.
        pixels: uint8 [1, H, W, 3].
        maps: the start map, and two maps of each block; none with instance norm, which never draws a part.
    """

    def __init__(
        self, weights: CudaWeights, library: Library, tables: Sequence[Tensor], windows: Windows, size: Size
    ) -> None:  # fmt: skip
        self._weights, self._library, self._tables, self._windows = weights, library, tables, windows
        self.sizes = level_sizes(*size, weights.config.upsamplings)
        device = weights.device
        self.index = [torch.zeros((1, *of_level), dtype=torch.int32, device=device) for of_level in self.sizes]
        self.pixels = torch.zeros((1, *size, 3), dtype=torch.uint8, device=device)
        shapes = [] if weights.config.norm == "instance" else kept_shapes(weights, self.sizes)
        self.maps = [
            torch.empty(shape, dtype=weights.dtype, device=device, memory_format=torch.channels_last)
            for shape in shapes
        ]

    @property
    def bytes(self) -> int:
        """Bytes of maps, index and image."""
        return sum(x.numel() * x.element_size() for x in (*self.maps, *self.index, self.pixels))

    def draw_whole(self, program: CudaProgram) -> None:
        """Run the program's whole drawing of the loaded map on this session's index; keep its maps and image."""
        step = program.kept_step(self._tables)
        for level, index in enumerate(self.index):
            program.plan.level_index(level).copy_(index)
        step.run()
        for kept, new in zip(self.maps, step.maps, strict=bool(self.maps)):
            kept.copy_(new)
        self.pixels.copy_(program.pixels)

    # ---- A part ----

    def jobs(self, reached: Sequence[Rectangle]) -> list[Job]:
        """The convs of an edit, two or three of each block, on the windows that have the bits of whole maps."""
        found = []
        for block, dx, x in zip(self._weights.blocks, reached[1::2], reached[2::2], strict=False):
            for weight, area in ((block.conv_0, dx), (block.conv_s, x), (block.conv_1, x)):
                if weight is not None:
                    shape = ConvShape(weight.shape[1], len(weight), weight.shape[2], self.sizes[block.level])
                    window = self._windows.of(shape, area) if area.area else area
                    found.append(Job(shape, area, window))
        return found

    def draw_part(self, program: CudaProgram, reached: Sequence[Rectangle], jobs: Sequence[Job]) -> None:
        """Draw what an edit reaches: the rectangles of `reach.reached_maps`, by the `jobs` of the same rectangles."""
        norms, each = iter(self._tables), iter(jobs)
        if reached[0].area:  # only of a generator that starts from the label map: a style reaches everything
            self.maps[0].copy_(program.start())
        for number, block in enumerate(self._weights.blocks):
            x, dx, out = self.maps[2 * number : 2 * number + 3]
            self._draw_block(block, (x, dx, out), norms, each)
        self._draw_image(reached[-1])

    def _draw_block(
        self, block: CudaBlock, maps: tuple[Tensor, Tensor, Tensor], tables: Iterator[Tensor], jobs: Iterator[Job]
    ) -> None:  # fmt: skip
        x, dx, out = maps
        job = next(jobs)
        self._conv(block, block.conv_0, (block.norm_0, next(tables), block.shift, True), x, job, dx)
        shortcut: Tensor | None = None
        if block.norm_s is not None and block.conv_s is not None:
            shortcut = self._conv(block, block.conv_s, (block.norm_s, next(tables), block.shift, False), x, next(jobs))
        job, table = next(jobs), next(tables)
        if not job.area.area:
            return
        if shortcut is None:
            shortcut = _upsampled(x, job.area, block.shift)
        made = self._conv(block, block.conv_1, (block.norm_1, table, 0, True), dx, job)
        assert made is not None
        part(out, job.area).copy_(made + shortcut)

    def _conv(
        self, block: CudaBlock, weight: Tensor, norm: tuple[CudaNorm, Tensor, int, bool], x: Tensor, job: Job,
        into: Tensor | None = None,
    ) -> Tensor | None:  # fmt: skip
        """The job's area of conv(act(norm(x))), written to a map if one is given; None for no pixel."""
        if not job.area.area:
            return None
        _, table, shift, leaky = norm
        index = self.index[block.level]
        window, whole = job.window, Rectangle.whole(*job.shape.size)
        if window != whole:
            rows, columns = window.slices
            index = index[:, rows, columns].contiguous()
            x = channels_last(part(x, _halved(window, shift)))
        hidden = modulate_codebook(x, table, index, Modulation(None, shift, leaky), library=self._library)
        made = part(self._windows.run(weight, hidden, window == whole), moved(job.area, window))
        if into is not None:
            part(into, job.area).copy_(made)
        return made

    def _draw_image(self, area: Rectangle) -> None:
        """Draw an area of the image from the last block's map. The kernel is ours: any window has the same bits."""
        if not area.area:
            return
        weights, x = self._weights, self.maps[-1]
        window = window_around(area, 1, self.sizes[-1])
        pixels = torch.empty((1, window.height, window.width, 3), dtype=torch.uint8, device=x.device)
        image_conv(
            channels_last(part(x, window)), weights.conv_img, weights.image_bias, constant=weights.constant,
            pixels=pixels, library=self._library,
        )  # fmt: skip
        rows, columns = area.slices
        inner_rows, inner_columns = moved(area, window).slices
        self.pixels[:, rows, columns] = pixels[:, inner_rows, inner_columns]


def _halved(area: Rectangle, shift: int) -> Rectangle:
    """The pixels of a map half the size that an area of even edges reads, or the area itself without a shift."""
    return Rectangle(*(edge >> shift for edge in area))


def _upsampled(x: Tensor, area: Rectangle, shift: int) -> Tensor:
    """An area of a map, read from the map half its size where there is a shift."""
    read = part(x, _halved(area, shift))
    return F.interpolate(read, scale_factor=2, mode="nearest") if shift else read
