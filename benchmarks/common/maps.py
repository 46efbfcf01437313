"""The label maps that benchmarks run on."""

from __future__ import annotations

from pathlib import Path

from spade_core.maps.samples import Maps, read_maps

__all__ = ["Maps", "labels_name", "read_maps"]


def labels_name(labels: Path | str | None) -> str:
    """The name of the maps in a report: the name of their folder without its path, or `drawn`."""
    return Path(labels).resolve().name if labels else "drawn"
