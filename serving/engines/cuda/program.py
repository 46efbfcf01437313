"""A generator on CUDA for batches of one shape: plan, codebooks and convs as CUDA graphs.

There is one graph of the plan and, for each bucket of patch counts, one graph of the codebooks and one of all steps
from the start map to the bytes of the image. A graph runs its kernels without the host in between.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cuda.codebook.codebook import Embed, embed
from kernels.cuda.host.library import Library
from kernels.cuda.image.image import image_conv
from kernels.cuda.modulate.modulate_codebook import Modulation, modulate_codebook
from kernels.cuda.norm.norm import norm_statistics
from serving.engines.cuda.codebooks import Codebooks, Shape, make_plan
from serving.engines.cuda.recorder import Recorder
from serving.engines.cuda.weights import CudaNorm, CudaWeights
from serving.engines.cuda.windows import conv
from spade_core.config import STYLE_DIM

BUCKETS = 8  # buckets that a program keeps; maps of one kind need two or three
RECENT = 16  # the last plans, from which the bucket of the next plan is guessed


@dataclass
class Bucket:
    """The memory of one bucket, and its two recorded steps: computing the codebooks, and running the convs."""

    size: int
    codebooks: Codebooks
    compute: Callable[[], None]
    convs: Callable[[], None]


@dataclass(frozen=True)
class KeptStep:
    """The maps between the convs, as `kept_shapes` lists them, and the recorded step that fills them."""

    maps: list[Tensor]
    run: Callable[[], None]


class CudaProgram:
    """Memory at fixed addresses, and the steps that read and write it. Not thread-safe.

    Attributes:
        values: float32 [N, 3, H, W] in -1..1, an output.
        pixels: uint8 [N, H, W, 3], an output.
    """

    def __init__(self, weights: CudaWeights, shape: Shape, library: Library, recorder: Recorder) -> None:
        self._weights, self._library, self._shape, self._recorder = weights, library, shape, recorder
        self.plan = make_plan(weights, shape, library)
        # Recording runs the plan, so the symbols must be valid. As int16, because PyTorch supports few operations on
        # uint16.
        self._symbols = self.plan.symbols.view(torch.int16)
        self._symbols.zero_()
        self._style = torch.zeros((shape[0], STYLE_DIM), dtype=weights.dtype, device=weights.device)
        self.values = torch.empty((shape[0], 3, *shape[1:]), dtype=torch.float32, device=weights.device)
        self.pixels = torch.empty((*shape, 3), dtype=torch.uint8, device=weights.device)
        self._buckets: OrderedDict[int, Bucket] = OrderedDict()
        self._needed: deque[int] = deque(maxlen=RECENT)
        self._find = recorder.record(self.plan.find)
        self._kept: KeptStep | None = None

    def find(self) -> None:
        """Plan the loaded maps, and start to copy the offsets to the host. Does not wait."""
        self._find()
        self.plan.begin_read()

    def needs(self, size: int) -> None:
        """Note which bucket a batch needs."""
        self._needed.append(size)

    def likely(self) -> Bucket | None:
        """The bucket that held the last `RECENT` batches, most likely enough for the next; None if it does not exist.

        Spare rows of a bucket cost nothing. If the bucket is too small the image is wrong (the caller retries), but no
        write is out of bounds.
        """
        return self._buckets.get(max(self._needed, default=0))

    def bucket(self) -> Bucket:
        """The bucket that holds the last `RECENT` batches, made if need be. The `BUCKETS` used last are kept."""
        size = max(self._needed)
        if size not in self._buckets:
            if len(self._buckets) == BUCKETS:
                self._buckets.popitem(last=False)  # frees memory before the new bucket takes some
            codebooks = Codebooks(self._weights, self.plan, size, self._library)
            compute = self._recorder.record(codebooks.compute)
            convs = self._recorder.record(lambda: self._run_convs(codebooks))
            self._buckets[size] = Bucket(size, codebooks, compute, convs)
        self._buckets.move_to_end(size)
        return self._buckets[size]

    def load(self, symbols: npt.NDArray[np.uint16], style: npt.NDArray[np.float32] | None) -> None:
        """Start the copies of the inputs: symbols [N, H, W], and style [N, 256] where the model takes one."""
        self._symbols.copy_(_pinned(torch.from_numpy(symbols.view(np.int16)), self._weights.device), non_blocking=True)
        if style is not None:
            self._style.copy_(_pinned(torch.from_numpy(style), self._weights.device), non_blocking=True)

    def kept_step(self, tables: Sequence[Tensor]) -> KeptStep:
        """The step from the start map to the image that leaves every map between the convs; recorded once.

        Args:
            tables: T [rows, 2C] of each norm, at fixed addresses; `plan.index` names their rows.
        """
        if self._kept is None:
            maps = [
                torch.empty(shape, dtype=self._weights.dtype, device=self._weights.device,
                            memory_format=torch.channels_last)
                for shape in kept_shapes(self._weights, self.plan.sizes)
            ]  # fmt: skip
            self._kept = KeptStep(maps, self._recorder.record(lambda: self._run_steps(tables, maps)))
        return self._kept

    # ---- Steps ----

    def _run_convs(self, codebooks: Codebooks) -> None:
        self._run_steps(codebooks.entries, [])

    def _run_steps(self, tables: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
        """From the start map to the image. Copies the maps between the convs to `kept`, if there are any."""
        entries, keep = iter(tables), iter(kept)
        x = self.start()
        _keep(x, keep)
        for block in self._weights.blocks:
            norm = self._norm_step(block.level, entries)
            hidden = norm(block.norm_0, x, block.shift, True)
            dx = conv(block.conv_0, hidden)
            _keep(dx, keep)
            if block.norm_s is not None and block.conv_s is not None:
                shortcut = conv(block.conv_s, norm(block.norm_s, x, block.shift, False))
            else:
                shortcut = F.interpolate(x, scale_factor=2, mode="nearest") if block.shift else x
            x = conv(block.conv_1, norm(block.norm_1, dx, 0, True)).add_(shortcut)
            _keep(x, keep)
        weights = self._weights
        image_conv(
            x, weights.conv_img, weights.image_bias, constant=weights.constant, values=self.values, pixels=self.pixels,
            library=self._library,
        )  # fmt: skip

    def _norm_step(self, level: int, entries: Iterator[Tensor]) -> Callable[[CudaNorm, Tensor, int, bool], Tensor]:
        index = self.plan.level_index(level)

        def run(norm: CudaNorm, x: Tensor, shift: int, leaky: bool) -> Tensor:
            statistics = None
            if norm.instance:  # x before the upsampling: repeating pixels keeps mean and variance
                statistics = norm_statistics(x, "instance", library=self._library)
            how = Modulation(statistics, shift, leaky)
            return modulate_codebook(x, next(entries), index, how, library=self._library)

        return run

    def start(self) -> Tensor:
        """The start map, channels last [N, 16 nf, h0, w0]."""
        weights, (n, _, _) = self._weights, self._shape
        h0, w0 = self.plan.sizes[0]
        if weights.fc is not None:
            start: Tensor = weights.fc(self._style).view(n, -1, h0, w0)
            return start.contiguous(memory_format=torch.channels_last)
        assert weights.table is not None
        assert weights.table_bias is not None
        step = 2**weights.config.upsamplings
        small = self._symbols[:, ::step, ::step].int() & 0xFFFF  # NEAREST by a whole factor
        padded = F.pad(small, (1, 1, 1, 1), value=weights.config.symbols)
        # A start map of one column makes reshape return a view whose rows overlap, so it is copied.
        patches = padded.unfold(1, 3, 1).unfold(2, 3, 1).reshape(-1, 9).contiguous()  # [N h0 w0, 9]
        rows = torch.empty((len(patches), len(weights.table_bias)), dtype=weights.dtype, device=weights.device)
        patch_sums = Embed(weights.table, weights.table_bias, patches, rows, relu=False, zero_row=False)
        embed(patch_sums, library=self._library)
        return rows.view(n, h0, w0, -1).permute(0, 3, 1, 2)


def _keep(x: Tensor, keep: Iterator[Tensor]) -> None:
    kept = next(keep, None)
    if kept is not None:
        kept.copy_(x)


def kept_shapes(weights: CudaWeights, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """The shapes of the maps between the convs of one image: the start map, and two maps of each block."""
    shapes = [(1, weights.blocks[0].norm_0.channels, *sizes[0])]
    for block in weights.blocks:
        shapes += [(1, len(weight), *sizes[block.level]) for weight in (block.conv_0, block.conv_1)]
    return shapes


def _pinned(x: Tensor, device: torch.device) -> Tensor:
    return x.pin_memory() if device.type == "cuda" else x
