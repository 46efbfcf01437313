"""The log of a run: rows of statistics and of validation as JSONL, and the boards that show them beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spade_core.files.strict_json import json_text
from spade_core.files.whole_file import write_whole
from trainer.config import TrainConfig
from trainer.output.boards import Board, TensorBoard, WeightsAndBiases

Row = Mapping[str, float]


class Logs:
    """Rows in `statistics.jsonl` and `validation.jsonl`; scalars and sample grids on the boards that are there.

    Resuming at `step` drops the rows that a killed run wrote after that step.
    """

    def __init__(self, folder: Path, step: int, config: TrainConfig) -> None:
        self.statistics, self.validation = folder / "statistics.jsonl", folder / "validation.jsonl"
        for path in (self.statistics, self.validation):
            kept = [row for row in read_rows(path) if row["step"] <= step]
            if path.exists() or kept:
                text = "".join(json_text(row) + "\n" for row in kept)
                write_whole(path, lambda draft, text=text: draft.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        self._boards: list[Board] = []
        if tensorboard := TensorBoard.at(folder / "tensorboard", step):
            self._boards.append(tensorboard)
        if config.run.wandb:
            self._boards.append(WeightsAndBiases(folder, config))

    def row(self, values: Row) -> None:
        """Write one row of statistics by name, `step` among them."""
        self._write(self.statistics, values, "")

    def scores(self, values: Row) -> None:
        """Write one row of a validation by name, `step` among them."""
        self._write(self.validation, values, "validation/")

    def grid(self, step: int, image: npt.NDArray[np.uint8]) -> None:
        """Show a sample grid [H, W, 3] on the boards."""
        for board in self._boards:
            board.grid(step, image)

    def close(self) -> None:
        """Finish the boards' files."""
        for board in self._boards:
            board.close()

    def _write(self, path: Path, values: Row, group: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json_text(dict(values)) + "\n")
        shown = {f"{group}{name}": value for name, value in values.items() if name not in ("step", "images")}
        for board in self._boards:
            board.row(int(values["step"]), shown)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a file of `Logs`, without a last line that a killed run left unfinished."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
