"""The label maps that benchmarks run on."""

from __future__ import annotations

from export.maps import Maps, read_maps

__all__ = ["Maps", "read_maps"]
