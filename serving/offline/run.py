"""An offline run: what is there already, what is missing, the manifest, and the list of what failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from serving.offline.drawings import Drawing, Entry, Recipe, plan
from serving.offline.sources import Item
from serving.requests.images import FORMATS
from spade_core.files.whole_file import write_whole

MANIFEST, FAILED = "manifest.jsonl", "failed.jsonl"
_DRAFT = re.compile(r"\.[0-9a-f]{40}\.(png|jpg|webp)\.[0-9a-f]{8}\.tmp")


class Run:
    """A run into one folder. The same run again draws what is missing.

    Args:
        seeds: of each item without a seed of its own; None for a model without style input.

    Attributes:
        entries: of the manifest, one for each item and seed.
        missing: the drawings whose files are not there.
    """

    def __init__(self, items: Sequence[Item], seeds: Sequence[int] | None, recipe: Recipe, out: Path) -> None:
        self.out = out
        self.entries, drawings = plan(items, seeds, recipe, FORMATS[recipe.format])
        self.missing: list[Drawing] = [drawing for drawing in drawings if not (out / drawing.file).exists()]
        self._failed: dict[str, str] = {}

    def note(self, failed: dict[str, str]) -> None:
        """Remember files that were not drawn, and why."""
        self._failed |= failed

    def finish(self) -> list[Entry]:
        """Write `manifest.jsonl` and `failed.jsonl`, and sweep what killed workers left. Returns what failed."""
        for path in self.out.iterdir():
            if _DRAFT.fullmatch(path.name):
                path.unlink(missing_ok=True)
        entries = [replace(entry, reason=self._failed.get(entry.file, entry.reason)) for entry in self.entries]
        failed = [entry for entry in entries if entry.reason]
        _write_lines(self.out / MANIFEST, (entry for entry in entries if not entry.reason))
        if failed:
            _write_lines(self.out / FAILED, failed)
        else:
            (self.out / FAILED).unlink(missing_ok=True)
        return failed


def _write_lines(path: Path, entries: Iterable[Entry]) -> None:
    lines = [json.dumps({name: value for name, value in asdict(entry).items() if value != ""}) for entry in entries]
    write_whole(path, lambda draft: draft.write_text("".join(f"{line}\n" for line in lines)))
