"""The report of `spade bench`: what every subcommand writes, and reads again to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common.report import machine
from spade_core.files.strict_json import json_text

SCHEMA = "spade-bench/1"
"""Name and version of the form. A field that is added keeps the version; a field that changes or goes raises it."""

KINDS = ("model", "server", "kernels", "export", "overload")

Row = dict[str, Any]
"""A measured row: `name` (who), `case` (on what), `measures` (the value of each paired turn), and the kind's fields."""


class ReportError(ValueError):
    """A file is no report, or a report of another kind or version."""


@dataclass(frozen=True)
class Missing:
    """A row that was asked for and could not be measured."""

    name: str
    case: str
    reason: str


@dataclass
class Report:
    """What a run measured.

    Attributes:
        kind: one of KINDS.
        setup: the options that the figures depend on.
        rows: see Row. Two rows of different reports are the same row where `name` and `case` agree.
        missing: rows that could not be measured.
        noise: what disturbed the run, by `benchmarks.report.noise`.
        machine: processor, memory, versions, date.
        context: what was measured once and holds for many rows, such as the processor's peak.
    """

    kind: str
    setup: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    noise: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=machine)
    context: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the report as JSON. Makes the folder of `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_text({"schema": SCHEMA} | asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path, kind: str | None = None) -> Report:
        """Read a report, of this kind where one is given. Raises ReportError."""
        try:
            found = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ReportError(f"[bench] expected a report of `spade bench` in '{path}' but got {error}") from None
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise ReportError(
                f"[bench] expected a report with schema {SCHEMA} in '{path}' but got {schema!r}; measure it again"
            )
        if kind is not None and found["kind"] != kind:
            raise ReportError(
                f"[bench] expected a report of `spade bench {kind}` in '{path}' but got one of "
                f"`spade bench {found['kind']}`"
            )
        missing = [Missing(**one) for one in found["missing"]]
        return cls(
            found["kind"], found["setup"], found["rows"], missing, found["noise"], found["machine"], found["context"]
        )  # fmt: skip


def key(row: Row) -> tuple[str, str]:
    """What makes two rows of different reports the same row."""
    return row["name"], row["case"]
