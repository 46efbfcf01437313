"""The contract of every engine: checked inputs in, images out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.engines.timings import Timings
from spade_core.config import GeneratorConfig
from spade_core.maps.label_maps import prepare
from spade_core.models.style import check_style
from spade_core.types import Images, Instances, Labels, Style, Symbols


@dataclass(frozen=True, eq=False)
class Inputs:
    """The checked inputs of N images of one size. `check_inputs` makes them from the arrays of a request.

    Attributes:
        labels: uint8 [N, H, W], as the request holds them.
        instances: int32 [N, H, W] where the model reads instance edges, else None.
        symbols: uint16 [N, H, W], made from labels and instances.
        style: float32 [N, 256] where the model has a style input, else None.
    """

    labels: Labels
    instances: Instances | None
    symbols: Symbols
    style: Style | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        _, height, width = self.labels.shape
        return height, width

    def take(self, images: slice | list[int]) -> Inputs:
        """The inputs of some of the images."""
        return Inputs(
            self.labels[images],
            None if self.instances is None else self.instances[images],
            self.symbols[images],
            None if self.style is None else self.style[images],
        )

    @classmethod
    def join(cls, parts: Sequence[Inputs]) -> Inputs:
        """One batch of inputs of equal size for the same model. A single part is not copied."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.labels for part in parts]),
            _joined([part.instances for part in parts]),
            np.concatenate([part.symbols for part in parts]),
            _joined([part.style for part in parts]),
        )


def _joined(arrays: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    """All arrays, or None: whether an input exists depends on the model, so all parts have the input or none has."""
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None


def check_inputs(labels: Labels, instances: Instances | None, style: Style | None, config: GeneratorConfig) -> Inputs:
    """Check the arrays of a request and make its symbols.

    Args:
        labels: uint8 [N, H, W], ids 0 .. label_nc - 1, or 255 where `config.dont_care`.
        instances: int32 [N, H, W], exactly where `config.instance_edges`.
        style: float32 [N, 256], finite, exactly where `config.style`.

    Raises ValueError, naming the first value that is wrong.
    """
    symbols = prepare(labels, instances, config)
    return Inputs(labels, instances, symbols, check_style(style, len(symbols), config))


class Engine(ABC):
    """The interface of every engine (torch, cpu, tensorrt).

    Attributes:
        config: the architecture that the weights were made for.
        name: `torch`, `cpu` or `tensorrt`.
        precision: `fp32`, `bf16`, `int8` or `fp16`.
        max_concurrent_calls: 2 where a device draws one batch while the host prepares the next, else 1.
    """

    config: GeneratorConfig
    name: str
    precision: str
    max_concurrent_calls: int = 1

    @abstractmethod
    def run(self, inputs: Inputs, timings: Timings | None = None) -> Images:
        """Checked inputs of N images -> images uint8 [N, H, W, 3]. Adds to `timings`."""

    def synthesize(
        self, labels: Labels, instances: Instances | None, style: Style | None, timings: Timings | None = None
    ) -> Images:
        """Label maps [N, H, W] -> images [N, H, W, 3]: `check_inputs`, then `run`. Raises ValueError."""
        return self.run(check_inputs(labels, instances, style, self.config), timings)
