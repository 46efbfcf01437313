"""The label maps that benchmarks run on."""

from __future__ import annotations

from pathlib import Path

from export.maps import Maps, read_maps

__all__ = ["Maps", "labels_name", "read_maps"]


def labels_name(labels: Path | str | None) -> str:
    """What a report calls the maps: their folder's name, since its path says nothing to others."""
    return Path(labels).resolve().name if labels else "drawn"
