"""What every generator is, and what it is given: a form, which reads the label map in the generator's place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spade_core.config import GeneratorConfig
from spade_core.models.spade import SPADE


class Form(Protocol):
    """How a generator reads a batch of label maps: dense, on one-hot maps, or through a codebook."""

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of the start map, which the blocks keep."""

    def segmap(self, step: int) -> Tensor:
        """The one-hot map, every `step`-th pixel of each row and column: [N, semantic_nc, H / step, W / step]."""

    def start(self, fc: nn.Module) -> Tensor:
        """`fc`, a 3x3 conv with padding 1, of the one-hot map at the start size: [N, C, h0, w0]."""

    def normalise(self, spade: SPADE, x: Tensor) -> Tensor:
        """Apply the norm `spade` to x [N, C, h, w], with the label map of that size."""


class AnyGenerator(nn.Module, ABC):
    """A network that draws an image of a label map, of any architecture.

    Attributes:
        config: the configuration the network was built from.
        conv_img: the last conv.
    """

    config: GeneratorConfig
    conv_img: nn.Conv2d

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the one-hot maps and the style that the network reads."""
        return self.conv_img.weight.dtype

    @abstractmethod
    def draw(self, form: Form, style: Tensor | None) -> Tensor:
        """The label maps in `form`, style [N, 256] or None -> the image before tanh [N, 3, H, W]."""


def before_tanh(image: Tensor, value_range: Tensor) -> Tensor:
    """The image before tanh [N, 3, H, W] of an image that a network draws without tanh.

    Args:
        image: [N, 1 or 3, H, W].
        value_range: [2], the values that are black and white; others are clamped.
    """
    low, high = value_range.to(image.dtype)
    scaled = ((image - low) * (2 / (high - low)) - 1).clamp(-1, 1)
    return torch.atanh(scaled).expand(-1, 3, -1, -1)  # infinite for black and white, where tanh is -1 and 1


@runtime_checkable
class NormedConvs(Protocol):
    """A module that names its convs that take spectral norm while training."""

    def normed_convs(self) -> Sequence[nn.Conv2d | nn.ConvTranspose2d]:
        """The module's own convs, without those of its submodules."""
