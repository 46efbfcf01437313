"""Contact sheets: label maps in colours above their images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from spade_core.maps.colours import draw
from spade_core.types import Images, Labels

_GAP = 8  # pixels between pairs, and around the sheet


def contact_sheet(labels: Labels, images: Images, palette: npt.NDArray[np.uint8], columns: int = 4) -> Image.Image:
    """Label maps [N, H, W] above their images [N, H, W, 3], `columns` pairs to a row, on white.

    `palette` uint8 [n, 3] colours the ids.
    """
    height, width = labels.shape[1:]
    columns = min(columns, len(labels))
    rows = -(-len(labels) // columns)
    sheet = np.full((rows * (2 * height + 2 * _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for i, (one, image) in enumerate(zip(labels, images, strict=True)):
        top = (i // columns) * (2 * height + 2 * _GAP) + _GAP
        left = (i % columns) * (width + _GAP) + _GAP
        below = top + height + _GAP // 2
        sheet[top : top + height, left : left + width] = draw(one, palette)
        sheet[below : below + height, left : left + width] = image
    return Image.fromarray(sheet)
