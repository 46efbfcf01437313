"""Contact sheets: a label map in colours above its image."""

from __future__ import annotations

import numpy as np

from spade_core.maps.sheet import contact_sheet


def test_the_contact_sheet_shows_each_map_above_its_image() -> None:
    labels = np.array([[[0, 1]], [[1, 1]]], np.uint8)
    images = np.full((2, 1, 2, 3), 9, np.uint8)
    palette = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    sheet = np.asarray(contact_sheet(labels, images, palette, columns=2))
    assert sheet[8, 8].tolist() == [1, 2, 3]
    assert sheet[8, 9].tolist() == [4, 5, 6]
    assert sheet[8 + 1 + 4, 8].tolist() == [9, 9, 9]
    assert sheet[8, 8 + 2 + 8].tolist() == [4, 5, 6]
