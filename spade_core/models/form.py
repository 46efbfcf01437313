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
        conv_img: the last conv, whose dtype is the dtype of the one-hot maps and the style.
    """

    config: GeneratorConfig
    conv_img: nn.Conv2d

    @abstractmethod
    def draw(self, form: Form, style: Tensor | None) -> Tensor:
        """The label maps in `form`, style [N, 256] or None -> the image before tanh [N, 3, H, W]."""


@runtime_checkable
class NormedConvs(Protocol):
    """A module that names its convs that take spectral norm while training."""

    def normed_convs(self) -> Sequence[nn.Conv2d | nn.ConvTranspose2d]:
        """The module's own convs, without those of its submodules."""
