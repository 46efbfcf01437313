"""The setting of a step of the GPU benchmark, and its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spade_core.files.strict_json import json_text
from spade_core.files.whole_file import write_whole

Report = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """The setting of one step.

    Attributes:
        labels: folder of label maps, or None for drawn maps.
        dry_run: take small inputs on the CPU, and stop before the first launch.
        ends: time.monotonic() after which the step begins no further measurement.
        out: file of the report, or None.
    """

    labels: Path | None
    dry_run: bool
    ends: float
    out: Path | None = None

    def save(self, report: Report) -> None:
        """Write the report so far, so that a step that is ended early keeps its rows."""
        if self.out is not None:
            write_whole(self.out, lambda draft: draft.write_text(json_text(report)))
