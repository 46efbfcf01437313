"""Names of the arrays that travel between the packages. The kernels' names come from `kernels.layouts`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.layouts import Array, Edges, Instances, Int32, Int64, Labels, Symbols

__all__ = [
    "Array",
    "Edges",
    "Ids",
    "Image",
    "Images",
    "Instances",
    "Int32",
    "Int64",
    "Labels",
    "Map",
    "Style",
    "Symbols",
]

Map = npt.NDArray[np.uint8]  # [H, W], one label map
Ids = npt.NDArray[np.int32]  # [H, W], one instance map
Style = npt.NDArray[np.float32]  # [N, 256], or [256] of one image
Image = npt.NDArray[np.uint8]  # [H, W, 3], RGB
Images = npt.NDArray[np.uint8]  # [N, H, W, 3], RGB
