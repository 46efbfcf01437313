"""Boards that show a run while it goes on: TensorBoard, and Weights & Biases where a project is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainer.config import TrainConfig

_log = logging.getLogger(__name__)


class Board(Protocol):
    """A place for scalars and sample grids."""

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Show scalars by name."""

    def grid(self, step: int, image: npt.NDArray[np.uint8]) -> None:
        """Show a sample grid [H, W, 3]."""

    def close(self) -> None:
        """Finish the board's files."""


class TensorBoard:
    """TensorBoard's event files in a folder."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @classmethod
    def at(cls, folder: Path, step: int) -> TensorBoard | None:
        """The board of a run that is at `step`; None, with a warning, where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _log.warning("TensorBoard off: not installed; pip install -e '.[train]' in the checkout")
            return None
        return cls(SummaryWriter(str(folder), purge_step=step + 1 if step else None))

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def grid(self, step: int, image: npt.NDArray[np.uint8]) -> None:
        """Add an image."""
        self._writer.add_image("samples", image, step, dataformats="HWC")

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases in the project `run.wandb`; a run that resumes keeps its id.

    WANDB_MODE=offline writes to `out/wandb` alone, for `wandb sync` later. Raises ImportError where wandb is absent.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        try:
            import wandb
        except ImportError:
            raise ImportError(
                "[train] expected the package wandb for run.wandb but it is not installed; run "
                "`pip install -e '.[wandb]'` in the checkout of SPADE Serve, or leave run.wandb empty"
            ) from None
        self._image = wandb.Image
        self._run = wandb.init(
            project=config.run.wandb, dir=str(folder), id=_id(folder), resume="allow", config=asdict(config)
        )

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars."""
        self._run.log(dict(values), step=step)

    def grid(self, step: int, image: npt.NDArray[np.uint8]) -> None:
        """Log an image."""
        self._run.log({"samples": self._image(image)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _id(folder: Path) -> str:
    """The id of the folder's run, made up at its first start."""
    path = folder / "wandb.id"
    if not path.exists():
        import secrets

        path.write_text(secrets.token_hex(4) + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
