"""The setting of a step of the GPU benchmark, and its report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spade_core.config import GeneratorConfig, preset
from spade_core.files.strict_json import json_text
from spade_core.files.whole_file import write_whole

if TYPE_CHECKING:
    from benchmarks.common.maps import Maps

Report = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """The setting of one step.

    Attributes:
        labels: folder of label maps, or None for drawn maps.
        ends: time.monotonic() after which the step begins no further measurement.
        rehearsed: the library of emulated kernels, which run on the CPU on small inputs; None: the GPU.
        out: file of the report, or None.
    """

    labels: Path | None
    ends: float
    rehearsed: Path | None = None
    out: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where the kernels run."""
        return torch.device("cuda" if self.rehearsed is None else "cpu")

    @property
    def time_is_up(self) -> bool:
        """Whether no further measurement may begin."""
        return time.monotonic() > self.ends

    def config(self, side: int) -> GeneratorConfig:
        """The COCO generator for maps of side x side; in a rehearsal a narrow one at 32 x 32."""
        if self.rehearsed is None:
            return replace(preset("coco"), height=side, width=side)
        return replace(preset("coco"), height=32, width=32, nf=2)

    def maps(self, config: GeneratorConfig, count: int) -> Maps:
        """Label maps for a generator."""
        from benchmarks.common.maps import read_maps  # needs the compiled module, which the first step builds

        return read_maps(config, self.labels, count=count)

    def save(self, report: Report) -> None:
        """Write the report so far, so that a step that is ended early keeps its rows."""
        if self.out is not None:
            write_whole(self.out, lambda draft: draft.write_text(json_text(report)))
