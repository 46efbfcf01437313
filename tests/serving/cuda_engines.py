"""The GPU engine on emulated kernels, and convs that stand in for a library's."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from generators import trained_like
from torch import Tensor

from kernels.cuda.host.library import Library
from serving.engines.contract import Engine, Inputs, Session
from serving.engines.cuda.generator import CudaGenerator
from serving.engines.kept import SESSION_BYTES, KeptSession
from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.types import Images


class EmulatedEngine(Engine):
    """What `TorchEngine` is on a GPU in float32, on emulated kernels."""

    def __init__(self, config: GeneratorConfig, library: Library, session_bytes: int = SESSION_BYTES) -> None:
        self.config = config
        self.generator = CudaGenerator(trained_like(config), torch.float32, torch.device("cpu"), library)
        self.kept = self.generator.kept_maps(session_bytes, contextlib.nullcontext)

    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        images: Images = self.generator.run(inputs.symbols, inputs.style, values=False, timings=timings).numpy()
        return images

    def session(self) -> Session:
        return KeptSession(self, self.kept)


def in_one_order(weight: Tensor, x: Tensor) -> Tensor:
    """A conv that adds its products in one order whatever the map's size: any window has the bits of the whole."""
    return _summed(weight, x, range(x.shape[1]))


def by_size(weight: Tensor, x: Tensor) -> Tensor:
    """A conv that adds its channels backwards in maps that are not square, as libraries choose algorithms by size."""
    channels = range(x.shape[1])
    return _summed(weight, x, channels if x.shape[2] == x.shape[3] else channels[::-1])


def by_place(weight: Tensor, x: Tensor) -> Tensor:
    """A conv that adds its channels backwards in every second tile of 32 lines."""
    forth, back = (_summed(weight, x, order) for order in (range(x.shape[1]), range(x.shape[1])[::-1]))
    tiles = torch.arange(x.shape[2])[:, None] // 32 % 2
    return torch.where(tiles == 0, forth, back).contiguous(memory_format=torch.channels_last)


def _summed(weight: Tensor, x: Tensor, channels: range) -> Tensor:
    border, (height, width) = weight.shape[2] // 2, x.shape[2:]
    padded = F.pad(x, (border, border, border, border)).float()
    out = torch.zeros((len(x), len(weight), height, width))
    for channel in channels:
        for row in range(weight.shape[2]):
            for column in range(weight.shape[3]):
                read = padded[:, channel, None, row : row + height, column : column + width]
                out += weight[None, :, channel, row, column, None, None].float() * read
    return out.to(x.dtype).contiguous(memory_format=torch.channels_last)
