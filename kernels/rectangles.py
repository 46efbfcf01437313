"""Rectangles of pixels of a map."""

from __future__ import annotations

from typing import NamedTuple


class Rectangle(NamedTuple):
    """Rows top .. bottom - 1 and columns left .. right - 1. `EMPTY`, which holds no pixel, joins with anything."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def whole(cls, height: int, width: int) -> Rectangle:
        """All pixels of a map."""
        return cls(0, 0, height, width)

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rectangle as an index of an array [H, W]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def __or__(self, other: Rectangle) -> Rectangle:
        """The smallest rectangle that holds both."""
        if not self.area or not other.area:
            return self if self.area else other
        return Rectangle(
            min(self.top, other.top), min(self.left, other.left),
            max(self.bottom, other.bottom), max(self.right, other.right),
        )  # fmt: skip

    def grown(self, border: int, height: int, width: int) -> Rectangle:
        """The rectangle with `border` more pixels on each side, within a map. `EMPTY` stays empty."""
        if not self.area:
            return EMPTY
        return Rectangle(
            max(self.top - border, 0), max(self.left - border, 0),
            min(self.bottom + border, height), min(self.right + border, width),
        )  # fmt: skip

    def upsampled(self, shift: int) -> Rectangle:
        """The pixels that read the rectangle's pixels in a map `1 << shift` times as large."""
        return Rectangle(*(edge << shift for edge in self))


EMPTY = Rectangle(0, 0, 0, 0)
"""No pixel."""
