"""The log of a run: rows of statistics as JSONL, and TensorBoard."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spade_core.files.whole_file import write_whole

_log = logging.getLogger(__name__)


class Logs:
    """Rows in `statistics.jsonl`; scalars and sample grids for TensorBoard where TensorBoard is installed.

    Resuming at `step` drops the rows that a killed run wrote after that step.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "statistics.jsonl"
        kept = [row for row in read_statistics(self.path) if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_whole(self.path, lambda draft: draft.write_text(text, encoding="utf-8"))
        self._board = _tensorboard(folder / "tensorboard", step)

    def row(self, values: Mapping[str, float]) -> None:
        """Write one row of values by name, `step` among them."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(values)) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if name not in ("step", "images"):
                    self._board.add_scalar(name, value, int(values["step"]))

    def grid(self, step: int, image: npt.NDArray[np.uint8]) -> None:
        """Write a sample grid [H, W, 3] to TensorBoard."""
        if self._board is not None:
            self._board.add_image("samples", image, step, dataformats="HWC")

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def read_statistics(path: Path) -> list[dict[str, float]]:
    """The rows of a `statistics.jsonl`, without a last line that a killed run left unfinished."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.warning("TensorBoard off: not installed; pip install -e '.[train]' in the checkout")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
