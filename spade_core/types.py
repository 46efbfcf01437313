"""Names of the arrays that travel between the packages."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]  # [N, H, W]
Instances = npt.NDArray[np.int32]  # [N, H, W]
Style = npt.NDArray[np.float32]  # [N, 256]
Images = npt.NDArray[np.uint8]  # [N, H, W, 3], RGB
