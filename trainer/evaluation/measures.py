"""The measures of how images look, beside what they show: grid, border, and distances of a judge's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trainer.evaluation.fidelity import BorderError, BorderScore, Halves, HalvesScore
from trainer.evaluation.grid import GridEnergy, GridScore

Pooled = Callable[[Tensor], npt.NDArray[np.float64]]
"""Images uint8 [N, 3, H, W] -> one vector each, [N, D]."""


@dataclass(frozen=True)
class GridScores:
    """Grid scores by period in pixels; empty where no plain square was seen."""

    generated: dict[int, GridScore]
    real: dict[int, GridScore]
    squares: int


@dataclass(frozen=True)
class Looks:
    """How the images look; `halves` is None without a judge, `border` without an encoder for the styles."""

    grid: GridScores
    halves: HalvesScore | None
    border: BorderScore | None


@dataclass
class Measures:
    """Adds up over batches what `Looks` holds."""

    classes: int
    pooled: Pooled | None
    generated: GridEnergy = field(default_factory=GridEnergy)
    real: GridEnergy = field(default_factory=GridEnergy)
    halves: Halves = field(default_factory=Halves)
    seen: int = 0

    def __post_init__(self) -> None:
        self.border = BorderError(self.classes)

    def add(self, images: Tensor, originals: Tensor, labels: npt.NDArray[np.uint8], own: Tensor | None) -> None:
        """Add generated and real images uint8 [N, 3, H, W] of label maps [N, H, W].

        Args:
            own: the images generated in the styles of the real ones, for the border, or None.
        """
        real = _pixels(originals)
        self.generated.add(_pixels(images), labels)
        self.real.add(real, labels)
        if self.pooled is not None:
            self.halves.add(self.pooled(images), self.pooled(originals), self.seen)
        if own is not None:
            self.border.add(_pixels(own), real, labels)
        self.seen += len(labels)

    def looks(self) -> Looks:
        """The scores of all batches."""
        grid = GridScores(self.generated.scores(), self.real.scores(), self.real.squares)
        return Looks(grid, None if self.pooled is None else self.halves.score(), self.border.score())


def _pixels(images: Tensor) -> npt.NDArray[np.uint8]:
    return images.numpy().transpose(0, 2, 3, 1)
