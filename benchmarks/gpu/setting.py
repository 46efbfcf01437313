"""What a step of the GPU benchmark is told, and what a step reports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spade_core.files.whole_file import write_whole

Report = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a step is told.

    Attributes:
        labels: folder of label maps, or None for drawn ones.
        dry_run: small inputs on the CPU; stop before the first launch.
        ends: time.monotonic() by which the step leaves out what it has not begun.
        out: where the report goes, or None.
    """

    labels: Path | None
    dry_run: bool
    ends: float
    out: Path | None = None

    def save(self, report: Report) -> None:
        """Write the report so far: a step that is ended keeps its rows."""
        if self.out is not None:
            write_whole(self.out, lambda draft: draft.write_text(json.dumps(report)))
