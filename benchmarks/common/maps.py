"""The label maps that benchmarks run on."""

from __future__ import annotations

from pathlib import Path

from spade_core.maps.samples import Maps, read_maps
from spade_core.types import Array

__all__ = ["Maps", "feed", "labels_name", "read_maps"]


def labels_name(labels: Path | str | None) -> str:
    """What a report calls the maps: their folder's name, since its path says nothing to others."""
    return Path(labels).resolve().name if labels else "drawn"


def feed(labels: Array, instances: Array | None, style: Array | None) -> dict[str, Array]:
    """The inputs that there are, by name."""
    inputs = {"labels": labels, "instances": instances, "style": style}
    return {name: array for name, array in inputs.items() if array is not None}
